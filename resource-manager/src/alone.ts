// A resource manager with a store of its own, in its data directory: it always decides.
import { createFolder } from '../../lib/control/folder.js'
import type { Logger } from '../../lib/control/log.js'
import type { LeaseClaims } from '../../lib/control/schemas.js'
import { signToken } from '../../lib/control/token.js'
import { renewLmdbStore } from '../stores/lmdb-renewal.js'
import { lmdbStorePath, openLmdbStore } from '../stores/lmdb.js'
import { ownDataDir } from '../stores/ownership.js'
import type { Store } from '../stores/store.js'
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
  const { dataDir, heartbeatMs, nodeTimeoutMs, maxLeaseMs, scheduler } = config
  createFolder('dataDir', dataDir)
  const store = await openOwnStore(config, logger)
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

async function openOwnStore({ dataDir, minFreeBytes }: Config, logger: Logger): Promise<Store> {
  const disown = ownDataDir(dataDir)
  try {
    const path = lmdbStorePath(dataDir)
    if (!(await renewLmdbStore(path))) {
      logger.warn({ path }, 'no room to write the store anew: it stays as it is')
    }
  } catch (error) {
    disown()
    throw error
  }
  return openLmdbStore(dataDir, minFreeBytes, disown)
}
