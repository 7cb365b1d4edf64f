// The body of a worker thread: connects to the address in workerData and stays busy.
import { parentPort, workerData } from 'node:worker_threads'

import { setUp } from './common.mjs'

const { provider, address, mode } = workerData
const { device, queue, region } = setUp(provider)
const pair = await device.connect(address, { completionQueue: queue })
for (let i = 0; i < 8; i++) pair.postReceive({ local: region.bytes(i * 64, 64) })
// The other side has no receives: these stay in flight.
for (let i = 0; i < 8; i++) pair.send({ local: region.bytes(512, 64) })
parentPort.postMessage('busy')
if (mode === 'spin') while (pair.state === 'connected') queue.spin({ timeoutMs: 5 })
else await queue.wait()
