// Accepts one connection, posts two receives and looks at nothing any more, until it is killed.
import { listen, say, setUp } from './common.mjs'

const { device, queue, region } = setUp()
const request = await listen(device).next()
await request.accept({
  completionQueue: queue,
  privateData: region.remoteKey.toBytes(),
  prepare: (pair) => {
    for (let id = 0; id < 2; id++) pair.postReceive({ id, local: region.bytes(id * 64, 64) })
  },
})
say('connected')
setInterval(() => undefined, 1000)
