import { expect, test } from 'vitest'

import { RemoteKey, type Access } from '../../lib/fabric/index.js'
import { conformance, succeed, take, takeOne, thrown, type Link } from './support.js'

const ops = ['write', 'read', 'fetch-add', 'compare-swap'] as const
type Op = (typeof ops)[number]

function post({ client }: Link, op: Op, remote: RemoteKey, remoteOffset = 0, bytes = 8): void {
  const range = { id: 1, local: client.region.bytes(0, bytes), remote, remoteOffset }
  if (op === 'write') client.pair.write(range)
  else if (op === 'read') client.pair.read(range)
  else if (op === 'fetch-add') client.pair.fetchAdd({ ...range, add: 1 })
  else client.pair.compareSwap({ ...range, compare: 0, swap: 1 })
}

/** The request fails as remote-access, what is behind it does not run, nothing was touched. */
async function expectRefusal(link: Link, act: () => void): Promise<void> {
  const { client, server } = link
  client.region.bytes(0, 4096).fill(0x11)
  if (!server.region.closed) server.region.bytes().fill(0xee)
  act()
  // A provider that has already seen the failure takes no more; another one flushes it.
  client.pair.encode(0, { opcode: 'write', id: 2, remote: server.region.remoteKey })
  const behind = client.pair.submit(1)
  expect([1, -107]).toContain(behind)
  const ended = await take(client.queue, behind === 1 ? 2 : 1)
  expect(ended.map(({ id, status }) => [id, status])).toEqual(
    [
      [1, 'remote-access'],
      [2, 'flushed'],
    ].slice(0, ended.length),
  )
  expect(client.pair.state).toBe('error')
  expect(client.pair.submit(1)).toBe(-107)
  expect(client.region.bytes(0, 4096).every((byte) => byte === 0x11)).toBe(true)
  if (!server.region.closed) {
    expect(server.region.bytes().every((byte) => byte === 0xee)).toBe(true)
  }
}

/** Claims more than the region has, so that only the fabric can refuse. */
function forged(
  key: RemoteKey,
  change: Partial<{ address: bigint; rkey: bigint }> = {},
): RemoteKey {
  const { address, rkey } = key
  return new RemoteKey({ address, rkey, length: Number.MAX_SAFE_INTEGER, ...change })
}

conformance('protection', (fabric) => {
  test.each([1n, 0x100n, 0x8000_0000n, 0xffff_ffff_0000_0000n])(
    'a key that is wrong in the bits %# is refused',
    async (bits) => {
      const link = await fabric.link()
      const { remoteKey } = link.server.region
      // What a provider does not use of the 64 bits must be 0.
      const remote = forged(remoteKey, { rkey: remoteKey.rkey ^ bits })
      await expectRefusal(link, () => post(link, 'write', remote))
    },
  )

  test('the key of a closed region is refused', async () => {
    const link = await fabric.link()
    const { remoteKey } = link.server.region
    post(link, 'write', remoteKey)
    await succeed(link.client.queue)
    link.server.region.close()
    await expectRefusal(link, () => post(link, 'write', remoteKey))
  })

  test.each(['write', 'read'] as const)('a %s one byte out of bounds is refused', async (op) => {
    for (const [offset, bytes] of [
      [65536, 1],
      [65529, 8],
      [0, 65537],
    ] as const) {
      const link = await fabric.link()
      // Room for the longest; what is protected is the peer's.
      const region = fabric.allocate(link.client.device, 65537)
      const local = region.bytes(0, bytes)
      const remote = forged(link.server.region.remoteKey)
      await expectRefusal(link, () => {
        const range = { id: 1, local, remote, remoteOffset: offset }
        if (op === 'write') link.client.pair.write(range)
        else link.client.pair.read(range)
      })
    }
  })

  test('a write one byte before the region is refused', async () => {
    const link = await fabric.link()
    const { remoteKey } = link.server.region
    const remote = forged(remoteKey, { address: remoteKey.address - 1n })
    await expectRefusal(link, () => post(link, 'write', remote))
  })

  test('a range that overflows the address space is refused', async () => {
    const link = await fabric.link()
    const remote = forged(link.server.region.remoteKey, { address: 0xffff_ffff_ffff_fffcn })
    await expectRefusal(link, () => post(link, 'write', remote))
  })

  test('the last byte of a region is within it', async () => {
    const link = await fabric.link()
    post(link, 'write', link.server.region.remoteKey, 65535, 1)
    await succeed(link.client.queue)
  })

  const lacking: Record<Op, Access> = {
    write: { remoteRead: true },
    read: { remoteWrite: true },
    'fetch-add': { remoteWrite: true, remoteRead: true },
    'compare-swap': { remoteWrite: true, remoteRead: true },
  }
  test.each(ops)('a %s to a region that does not allow it is refused', async (op) => {
    const link = await fabric.link({ access: lacking[op] })
    if (!link.client.device.info.atomics && (op === 'fetch-add' || op === 'compare-swap')) {
      console.warn(`${fabric.provider}: no ${op}, the device has no atomics`)
      return
    }
    await expectRefusal(link, () => post(link, op, link.server.region.remoteKey))
  })

  test('sends need no access: the receiver names the memory itself', async () => {
    const { client, server } = await fabric.link({ access: {} })
    server.pair.postReceive({ local: server.region.bytes(0, 8) })
    client.pair.send({ local: client.region.bytes(0, 8) })
    await succeed(server.queue)
  })

  test('bytes outside a region, of a closed one or of another device are never posted', async () => {
    const { client, server } = await fabric.link()
    const plain = new Uint8Array(8)
    expect(thrown(() => client.pair.send({ local: plain }))).toMatchObject({
      code: 'ERR_RFAAS_INVALID_ARGUMENT',
      field: 'local',
    })
    const theirs = server.region.bytes(0, 8)
    expect(thrown(() => client.pair.send({ local: theirs })).message).toContain('same device')
    const view = client.region.bytes(0, 8)
    client.region.close()
    expect(view.byteLength).toBe(0)
    expect(thrown(() => client.pair.send({ local: view })).code).toBe('ERR_RFAAS_CLOSED')
  })

  test('a range beyond what the key claims is refused before it is posted', async () => {
    const { client, server } = await fabric.link()
    const local = client.region.bytes(0, 8)
    const remote = server.region.remoteKey
    expect(thrown(() => client.pair.write({ local, remote, remoteOffset: 65529 }))).toMatchObject({
      code: 'ERR_RFAAS_INVALID_ARGUMENT',
      field: 'remoteOffset',
    })
  })

  test('keys survive the wire, and a wrong one is told apart', () => {
    const key = new RemoteKey({ address: 0xffff_ffff_ffff_ffffn, length: 4096, rkey: 1n << 63n })
    expect(RemoteKey.fromBytes(key.toBytes())).toEqual(key)
    expect(thrown(() => RemoteKey.fromBytes(new Uint8Array(23))).field).toBe('bytes')
    expect(thrown(() => new RemoteKey({ address: -1n, length: 8, rkey: 1n })).field).toBe('address')
  })

  test('an unsignalled request that fails completes nevertheless', async () => {
    const { client, server } = await fabric.link()
    const remote = forged(server.region.remoteKey)
    const local = client.region.bytes(0, 8)
    client.pair.write({ id: 9, local, remote, remoteOffset: 65536, signaled: false })
    expect(await takeOne(client.queue)).toMatchObject({ id: 9, status: 'remote-access' })
  })
})
