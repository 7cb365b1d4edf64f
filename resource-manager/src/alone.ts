// A resource manager with a store of its own, in its data directory: it always decides.
import { createFolder } from '../../lib/control/folder.js'
import type { Logger } from '../../lib/control/log.js'
import type { LeaseClaims } from '../../lib/control/schemas.js'
import { signToken } from '../../lib/control/token.js'
import { checkLmdbStore } from '../stores/lmdb-check.js'
import { lmdbStorePath, openLmdbStore } from '../stores/lmdb.js'
import type { Config } from './config.js'
import { loadSigningKeys } from './keys.js'
import { Manager } from './manager.js'
import type { Duty, Office } from './office.js'
import { clockAfter } from './succession.js'

/** Whoever gets it closes it. */
export async function openAlone(
  config: Config,
  logger: Logger,
): Promise<{ office: Office; publicKeyPem: string }> {
  const { dataDir, minFreeBytes, heartbeatMs, nodeTimeoutMs, maxLeaseMs, scheduler } = config
  createFolder('dataDir', dataDir)
  await checkLmdbStore(lmdbStorePath(dataDir))
  const store = openLmdbStore(dataDir, minFreeBytes)
  // Whatever fails from here on must give the store back, or the next start would be refused.
  try {
    const snapshot = await store.load()
    const clock = clockAfter(snapshot)
    await store.commit({ clock: clock.anchor })
    const { privateKey, publicKeyPem } = loadSigningKeys(dataDir)
    const sign = (claims: LeaseClaims): string => signToken(claims, privateKey)
    const terms = { heartbeatMs, nodeTimeoutMs, maxLeaseMs }
    const manager = new Manager({ store, snapshot, clock, sign, scheduler, logger, ...terms })
    let duty: Duty | undefined
    const office: Office = {
      start: (url, besides) => {
        duty = besides
        duty.begin(manager, url)
        return Promise.resolve()
      },
      manager,
      current: manager,
      failed: store.failed,
      assertHealthy: () => {
        store.assertWritable()
        return undefined
      },
      refuseWaiting: () => manager.refuseWaiting(),
      close: async () => {
        await duty?.end()
        manager.stop()
        await store.close()
      },
    }
    return { office, publicKeyPem }
  } catch (error) {
    await store.close()
    throw error
  }
}
