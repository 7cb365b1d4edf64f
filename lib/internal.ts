// What the managers and the runtimes may use of lib/ beside the public API.
export { native, type NativeWorker, type NativeWorkerOptions } from './native.js'
export { hostId } from './host.js'
