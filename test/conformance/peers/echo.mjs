// Accepts one connection and sends every message back; sleeps for it ("wait") or spins first ("spin").
import { args, listen, setUp } from './common.mjs'

const slots = 32
const bytes = 64
const { device, queue, region } = setUp()
const listener = listen(device)
const request = await listener.next()
const pair = await request.accept({
  completionQueue: queue,
  sendDepth: 2 * slots,
  prepare: (made) => {
    for (let id = 0; id < slots; id++) {
      made.postReceive({ id, local: region.bytes(id * bytes, bytes) })
    }
  },
})
listener.close()

while (pair.state === 'connected') {
  let completions = args[0] === 'spin' ? queue.spin({ budgetNs: 200_000 }) : []
  if (completions.length === 0) completions = await queue.wait()
  for (const { id, status, opcode, byteLength, immediate } of completions) {
    if (status !== 'success' || opcode !== 'receive') continue
    const local = region.bytes(id * bytes, byteLength)
    const answer = immediate === undefined ? { local } : { local, immediate }
    if (!pair.send({ ...answer, inline: true, signaled: id === 0 })) {
      throw new Error('the send queue is full: more in flight than agreed')
    }
    pair.postReceive({ id, local: region.bytes(id * bytes, bytes) })
  }
}
