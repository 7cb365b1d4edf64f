// Connects two devices of its own, leaves all kinds of work outstanding, and ends in the way that
// argv names. What it says first is where its listener was.
import { args, listen, say, setUp } from './common.mjs'

const near = setUp()
const far = setUp()
const listener = listen(far.device)
const [client, server] = await Promise.all([
  near.device.connect(listener.address, { completionQueue: near.queue }),
  (async () => await (await listener.next()).accept({ completionQueue: far.queue }))(),
])

const outstanding = () => {
  for (let i = 0; i < 4; i++) {
    server.postReceive({ local: far.region.bytes(i * 64, 64) })
    client.postReceive({ local: near.region.bytes(i * 64, 64) })
  }
  for (let i = 0; i < 8; i++) client.send({ local: near.region.bytes(0, 64) })
  near.region.close()
  const ignore = () => undefined
  const completionQueue = near.device.createCompletionQueue(256)
  near.device.connect(listener.address, { completionQueue }).catch(ignore)
}

switch (args[0]) {
  case 'exit': // with waits pending
    outstanding()
    far.device
      .createCompletionQueue(16)
      .wait()
      .catch(() => undefined)
    setTimeout(() => process.exit(0), 50)
    break
  case 'exit-at-once':
    outstanding()
    process.exit(0)
    break
  case 'idle': // nothing is pending, so the process ends by itself
    client.postReceive()
    say('idle')
    break
  case 'waiting': // what is pending keeps it alive until it has come
    client.postReceive({ id: 5 })
    setTimeout(() => server.send({}), 100).unref()
    say(`waited for ${(await near.queue.wait())[0].id}`)
    break
  case 'forget': {
    // Everything but a view is dropped; what is in use stays whole.
    let view
    const use = async () => {
      for (let i = 0; i < 50; i++) {
        const { device, queue, region } = setUp()
        const other = device.allocate(4096)
        const depths = { sendDepth: 4, receiveDepth: 4 }
        const pair = await Promise.all([
          device.connect(listener.address, { completionQueue: queue, ...depths }),
          (async () =>
            await (await listener.next()).accept({ completionQueue: far.queue, ...depths }))(),
        ]).then(([made]) => made)
        pair.postReceive({ local: other.bytes(0, 64) })
        if (i % 2 === 0) pair.close()
        view = region.bytes()
        view.fill(i)
      }
    }
    await use()
    for (let i = 0; i < 10; i++) {
      globalThis.gc()
      await new Promise((resolve) => setImmediate(resolve))
    }
    if (!view.every((byte) => byte === 49)) throw new Error('the bytes of a view have changed')
    say('whole')
    break
  }
  default:
    throw new Error(`unknown ending ${args[0]}`)
}
