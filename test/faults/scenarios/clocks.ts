// Clocks that are set while a manager runs.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { Traffic } from '../calls.js'
import { nativePackage } from '../packages.js'
import { until } from '../proc.js'
import { libfaketime, type Scenario } from '../scenario.js'
import { deployOptions, leaseOptions } from '../stage.js'

const oneCore = { ...leaseOptions, cores: 1 }

function jump(which: 'resource' | 'executor', by: '+1h' | '-1h'): Scenario {
  const direction = by === '+1h' ? 'forward' : 'backward'
  return {
    name: `clock-${which}-manager-${direction}`,
    fault: `the clock of the ${which} manager’s host jumps an hour ${direction}`,
    promise:
      'No lease ends early, none lasts longer than it was granted for, new ones are granted and used as before.',
    needs: 'faketime',
    async run(stage) {
      const clock = join(stage.folder, 'clock')
      writeFileSync(clock, '+0')
      const set = {
        env: {
          LD_PRELOAD: libfaketime!,
          FAKETIME_TIMESTAMP_FILE: clock,
          FAKETIME_NO_CACHE: '1',
          // A clock that is set is the wall clock; the others only ever go on.
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
        },
      }
      const { client, lease, functions } = await stage.deployed({
        lease: oneCore,
        ...(which === 'resource' ? { resourceManager: set } : { executorManager: set }),
      })
      const traffic = new Traffic(functions, { lanes: 1 })
      const short = { ...oneCore, duration: '6s', autoRenew: false } as const
      const brief = await stage.lease(client, short)
      const granted = performance.now()
      await brief.deploy(nativePackage(), deployOptions)
      writeFileSync(clock, by)
      await sleep(1500)
      // Both are as alive as they would be.
      const live = (await client.leases()).filter(({ state }) => state === 'active')
      assert.deepEqual(live.map(({ id }) => id).sort(), [lease.id, brief.id].sort())
      await until('the short one expires', async () => {
        return (await client.nodes())[0]?.freeCores === 1
      })
      const lastedMs = performance.now() - granted
      // Seen by those that a busy machine may hold up; the clock was off by an hour.
      assert(lastedMs > 5500 && lastedMs < 30_000, `a lease of 6 s lasted ${lastedMs} ms`)
      await lease.renew()
      await using later = await stage.lease(client, oneCore)
      const functionsLater = await later.deploy(nativePackage(), deployOptions)
      await functionsLater.invoke('nothing', new Uint8Array())
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `6 s lasted ${(lastedMs / 1000).toFixed(1)} s; ${answered} ok` }
    },
  }
}

export const clocks: Scenario[] = [
  jump('resource', '+1h'),
  jump('resource', '-1h'),
  jump('executor', '+1h'),
  jump('executor', '-1h'),
]
