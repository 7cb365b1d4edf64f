// `rfaas/fabric`: RDMA verbs for Node.js, and the same over shared memory.
export { openDevice, providers, Device } from './device.js'
export type { DeviceInfo, OpenOptions, ProviderStatus } from './device.js'
export { MemoryRegion, RemoteKey } from './memory-region.js'
export type { Access } from './memory-region.js'
export { CompletionQueue } from './completion-queue.js'
export type { Completion, Opcode, SpinOptions, Status } from './completion-queue.js'
export { QueuePair } from './queue-pair.js'
export type {
  CompareSwapRequest,
  FetchAddRequest,
  InlineOption,
  Local,
  QueuePairState,
  ReadRequest,
  ReceiveRequest,
  RemoteRange,
  RequestOptions,
  SendRequest,
  WorkRequest,
  WriteRequest,
} from './queue-pair.js'
export { ConnectionRequest, Listener } from './connection.js'
export type { AcceptOptions, ConnectOptions, QueuePairOptions } from './connection.js'
export type { WaitOptions } from './wait.js'
export { RfaasError } from '../errors.js'
export type { ErrorCode } from '../errors.js'
