// The disk of the resource manager.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

import { Traffic } from '../calls.js'
import { Daemon } from '../daemon.js'
import { until } from '../proc.js'
import type { Scenario } from '../scenario.js'
import { leaseOptions, type Stage } from '../stage.js'

const oneCore = { ...leaseOptions, cores: 1 }

/** A disk of its own for the resource manager. Its folder, and a file that fills the rest up. */
function smallDisk(stage: Stage): { fill(butBytes: number): void; empty(): void } {
  const folder = join(stage.folder, 'rm')
  mkdirSync(folder)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m,mode=700', 'tmpfs', folder])
  const filler = join(folder, 'filler')
  return {
    fill: (butBytes) => {
      const { bavail, bsize } = statfsSync(folder)
      writeFileSync(filler, new Uint8Array(bavail * bsize - butBytes))
    },
    empty: () => rmSync(filler),
  }
}

function spoiled(name: string, fault: string, spoil: (file: string) => void): Scenario {
  return {
    name,
    fault,
    promise:
      'The resource manager does not start on it, says which file and what to do, and grants nothing; calls go on; with the file restored everything is as it was.',
    async run(stage) {
      const { cluster, client, lease, functions } = await stage.deployed({ lease: oneCore })
      const traffic = new Traffic(functions)
      await cluster.resourceManager.end('SIGKILL')
      const file = join(stage.folder, 'rm', 'state.mdb')
      copyFileSync(file, `${file}.copy`)
      spoil(file)
      const args = ['resource-manager', '--port', '0', '--data-dir', join(stage.folder, 'rm')]
      const { ended, log } = await Daemon.startAndEnd(args)
      assert.equal(ended, 1, log)
      assert.match(log, /the store .*state\.mdb is damaged/)
      copyFileSync(`${file}.copy`, file)
      const restored = performance.now()
      await cluster.restartResourceManager()
      await cluster.registered()
      await stage.lease(client, oneCore)
      const recoveredMs = performance.now() - restored
      assert((await client.leases()).some(({ id, state }) => id === lease.id && state === 'active'))
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return {
        seen: `refused: ${/is damaged: ([^.]*)/.exec(log)?.[1]}; ${answered} ok`,
        recoveredMs,
      }
    },
  }
}

export const stores: Scenario[] = [
  {
    name: 'disk-almost-full',
    fault: 'the disk of the resource manager has less room than it wants to keep',
    promise:
      'Changes are refused with ERR_RFAAS_UNAVAILABLE before anything has changed; calls go on; a restart loses nothing; with room again, so do grants.',
    unshare: 'mount',
    async run(stage) {
      const disk = smallDisk(stage)
      const { cluster, client, lease, functions } = await stage.deployed({
        lease: oneCore,
        resourceManager: { args: ['--min-free-bytes', '4MiB'] },
      })
      const traffic = new Traffic(functions)
      // So that most of the store is used, and does not fit again into half of its room.
      for (let i = 0; i < 100; i += 1) await (await stage.lease(client, oneCore)).release()
      disk.fill(2 ** 20)
      const full = { code: 'ERR_RFAAS_UNAVAILABLE' }
      await assert.rejects(client.lease(oneCore), full)
      await assert.rejects(lease.renew(), full)
      assert.equal((await client.nodes())[0]?.freeCores, 1)
      disk.empty()
      disk.fill(statSync(join(stage.folder, 'rm', 'state.mdb')).size / 2)
      await cluster.resourceManager.end('SIGKILL')
      await cluster.restartResourceManager()
      assert.match(cluster.resourceManager.log, /no room to write the store anew/)
      assert((await client.leases()).some(({ id, state }) => id === lease.id && state === 'active'))
      await assert.rejects(lease.renew(), full)
      disk.empty()
      const began = performance.now()
      await cluster.registered()
      await stage.lease(client, oneCore)
      const recoveredMs = performance.now() - began
      await lease.renew()
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `refused; ${answered} ok meanwhile`, recoveredMs }
    },
  },
  {
    name: 'disk-full',
    fault: 'the disk of the resource manager is full in the middle of a write',
    promise:
      'What could not be stored is not acknowledged; the resource manager says why and ends with exit code 1, for its supervisor to restart it; calls go on; a restart with room on the disk has every acknowledged change.',
    unshare: 'mount',
    async run(stage) {
      const disk = smallDisk(stage)
      const { cluster, client, functions } = await stage.deployed({
        lease: oneCore,
        resourceManager: { args: ['--min-free-bytes', '1'] },
      })
      const traffic = new Traffic(functions)
      disk.fill(4096)
      const acknowledged: string[] = []
      let refusal = ''
      await until('a write fails', async () => {
        try {
          const second = await stage.lease(client, oneCore)
          acknowledged.push(second.id)
          await second.release()
          return false
        } catch (error) {
          refusal = (error as Error).message
          return true
        }
      })
      await assert.rejects(client.lease(oneCore), { code: 'ERR_RFAAS_UNAVAILABLE' })
      await traffic.next()
      const { resourceManager } = cluster
      await until('the resource manager ended', () => !resourceManager.running)
      assert.equal(await resourceManager.end('SIGTERM'), 1)
      assert.match(resourceManager.log, /the store .*state\.mdb could not be written/)
      disk.empty()
      const restarted = performance.now()
      await cluster.restartResourceManager()
      await cluster.registered()
      await until('the core is free', async () => (await client.nodes())[0]?.freeCores === 1)
      await stage.lease(client, oneCore)
      const recoveredMs = performance.now() - restarted
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      const what = /\(([^)]*)\)/.exec(refusal)?.[1] ?? refusal
      return { seen: `${what} after ${acknowledged.length} leases; ${answered} ok`, recoveredMs }
    },
  },
  spoiled('store-truncated', 'the store file was cut off', (file) => {
    truncateSync(file, Math.floor(readFileSync(file).length / 2))
  }),
  spoiled('store-overwritten', 'the store file was overwritten with other data', (file) => {
    writeFileSync(file, readFileSync(file).fill('not a database '))
  }),
  spoiled('store-record-corrupted', 'bytes of a record in the store file are wrong', (file) => {
    // Everywhere, as the pages of older versions hold the record as well.
    const bytes = readFileSync(file)
    for (let at = bytes.indexOf('"cores":'); at >= 0; at = bytes.indexOf('"cores":', at + 1)) {
      bytes.write('"corps":', at)
    }
    writeFileSync(file, bytes)
  }),
  spoiled('store-page-damaged', 'pages of the store file became zeros', (file) => {
    const pageBytes = 4096
    const bytes = readFileSync(file)
    for (let page = 2 * pageBytes; page < bytes.length; page += pageBytes) {
      if (bytes.subarray(page, page + pageBytes).includes('"cores":')) {
        bytes.fill(0, page, page + pageBytes)
      }
    }
    writeFileSync(file, bytes)
  }),
]
