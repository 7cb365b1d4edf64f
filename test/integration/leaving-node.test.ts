// A node that is wanted back while its lease is called: it refuses, ends its workers and is gone, one on the
// heels of the other.
import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'

import { allowedCores } from '../../executor-manager/src/node.js'
import { bytes, deployOptions, nativePackage, startCluster, type Cluster } from './support.js'

let cluster: Cluster | undefined
afterEach(() => cluster?.stop())

describe('a node that leaves', () => {
  test.each([1, 2, 3, 4])('loses no call of a lease that spans another (%i)', async () => {
    const [one, two] = allowedCores()
    cluster = await startCluster({
      nodes: [{ cores: [one!] }, { cores: [two!] }],
      executorManager: { noticeMs: '20s' },
    })
    const lease = await cluster.client.lease({ cores: 2, nodes: 2, memory: '128MiB' })
    const functions = await lease.deploy(nativePackage(), deployOptions)
    const lost: unknown[] = []
    lease.on('workerLost', (...event) => lost.push(event))
    let over = false
    // As many as there are slots: the node never has nothing to answer.
    const lanes = Array.from({ length: 16 }, async (_, i) => {
      while (!over) expect(await functions.invoke('echo', bytes(i))).toEqual(bytes(i))
    })
    const calls = Promise.all(lanes)
    calls.catch(() => undefined)
    const gone = once(lease, 'partLost')
    await cluster.executorManagers[0]!.close()
    expect((await gone)[0]).toBe('node-1')
    over = true
    await calls
    expect(await functions.invoke('echo', bytes(1))).toEqual(bytes(1))
    // Nothing went wrong.
    expect(lost).toEqual([])
    await lease.release()
  })
})
