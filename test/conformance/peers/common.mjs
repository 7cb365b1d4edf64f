// What the peers share: they run as plain Node processes on the compiled package.
import { existsSync, mkdtempSync, readFileSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'

import { openDevice } from '../../../dist/lib/fabric/index.js'

export { RemoteKey } from '../../../dist/lib/fabric/index.js'

export const [, , provider, ...args] = process.argv

/** A device with a completion queue and a region that peers may use in every way. */
export function setUp(name = provider, bytes = 65536) {
  const device = openDevice({ provider: name })
  const queue = device.createCompletionQueue(1024)
  const region = device.allocate(bytes, {
    remoteWrite: true,
    remoteRead: true,
    remoteAtomic: device.info.atomics,
  })
  return { device, queue, region }
}

/** Listens in a new place and says where on standard output. */
export function listen(device) {
  const listener = device.listen(
    device.info.provider === 'shm'
      ? join(mkdtempSync(join(tmpdir(), 'rfaas-conformance-peer-')), 'socket')
      : `${hostOf(device.info.name)}:0`,
  )
  say(listener.address)
  return listener
}

export function say(line) {
  process.stdout.write(`${line}\n`)
}

function hostOf(device) {
  const file = `/sys/class/infiniband/${device}/ports/1/gid_attrs/ndevs/0`
  const addresses = existsSync(file)
    ? (networkInterfaces()[readFileSync(file, 'utf8').trim()] ?? [])
    : []
  const found = addresses.find(({ family }) => family === 'IPv4') ?? addresses[0]
  return found.family === 'IPv4' ? found.address : `[${found.address}]`
}
