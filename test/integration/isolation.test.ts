import { readdirSync, readlinkSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { Lease } from '../../lib/index.js'
import {
  bytes,
  deployOptions,
  nativePackage,
  nodePackage,
  startCluster,
  type Cluster,
} from './support.js'

let cluster: Cluster
let lease: Lease

beforeAll(async () => {
  cluster = await startCluster()
  lease = await cluster.client.lease({ cores: 1, memory: '256MiB', duration: '5m' })
})
afterAll(() => cluster.stop())

function openFiles(): string[] {
  return readdirSync('/proc/self/fd').flatMap((descriptor) => {
    try {
      return [readlinkSync(`/proc/self/fd/${descriptor}`)]
    } catch {
      return [] // the folder itself, which is closed by now
    }
  })
}

const isOfCluster = (path: string): boolean =>
  path.startsWith(cluster.dataDir) || path.endsWith('.mdb')

describe.each([
  ['native', nativePackage],
  ['node', () => nodePackage],
])('a function of the %s runtime', (_runtime, path) => {
  test('has none of the files open that the managers have', async () => {
    // Both managers run in this process: there is something to inherit.
    expect(openFiles().filter(isOfCluster)).not.toEqual([])
    const functions = await lease.deploy(path(), deployOptions)
    const text = Buffer.from(await functions.invoke('descriptors', bytes())).toString()
    const targets = text.split('\n').filter((line) => line !== '')
    // Its own standard input is among them, so the list is one.
    expect(targets).toContainEqual(expect.stringMatching(/^(pipe|socket):/))
    expect(targets.filter(isOfCluster)).toEqual([])
    await functions.close()
  })
})
