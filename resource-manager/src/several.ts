// A resource manager that is one of several: what its server needs besides its leadership.
import type { Logger } from '../../lib/control/log.js'
import type { LeaseClaims } from '../../lib/control/schemas.js'
import { keptBefore } from '../../lib/control/security.js'
import type { ControlServer } from '../../lib/control/server.js'
import { signToken } from '../../lib/control/token.js'
import { Transport } from '../../lib/control/transport.js'
import { checkEtcdFormat } from '../stores/etcd.js'
import { Etcd } from '../stores/etcd-client.js'
import type { Config, ResourceManagerOptions, SharedConfig } from './config.js'
import { Forwarding, Peers } from './forwarding.js'
import { sharedSigningKeys } from './keys.js'
import { Leadership } from './leadership.js'
import { Manager } from './manager.js'
import { addLeadershipMetrics } from './metrics.js'

export interface Several {
  leadership: Leadership
  peers: Peers
  publicKeyPem: string
  /** Of the routes that the server gets from now on: requests go to who leads. */
  passOn(server: ControlServer): void
  /** Requests that were passed on are answered now. */
  giveUp(): void
}

/** Rejects when etcd does not answer: then an address or a certificate is wrong, or it has to be started
 * first. Later it may be away, and come back. */
export async function openShared(
  { etcd: members, prefix, leaderTimeoutMs }: SharedConfig,
  options: ResourceManagerOptions,
  config: Config,
  logger: Logger,
): Promise<Several> {
  const { allowPlaintext, etcdCa, etcdCert, etcdKey, peerCa } = options
  const failed = keptBefore(logger)
  const fields = { ca: 'etcdCa', cert: 'etcdCert', key: 'etcdKey' }
  const files = { ca: etcdCa, cert: etcdCert, key: etcdKey }
  const etcd = new Etcd(members, new Transport({ ...files, fields, failed, allowPlaintext }))
  const transport = new Transport({
    ca: peerCa,
    fields: { ca: 'peerCa', cert: '', key: '' },
    failed,
    allowPlaintext,
  })
  await checkEtcdFormat(etcd, prefix)
  const { privateKey, publicKeyPem } = await sharedSigningKeys(etcd, prefix)
  const sign = (claims: LeaseClaims): string => signToken(claims, privateKey)
  const peers = new Peers(privateKey)
  let changed = (): void => undefined
  let giveUp = (): void => undefined
  const leadership = new Leadership({
    etcd,
    prefix,
    ttlMs: leaderTimeoutMs,
    logger,
    startManager: (store, snapshot, clock) => {
      const { heartbeatMs, nodeTimeoutMs, maxLeaseMs, scheduler } = config
      const terms = { heartbeatMs, nodeTimeoutMs, maxLeaseMs }
      return new Manager({ store, snapshot, clock, sign, scheduler, logger, ...terms })
    },
    onChange: () => changed(),
  })
  const passOn = (server: ControlServer): void => {
    const forwarding = new Forwarding({ peers, transport, principalOf: server.door.principalOf })
    addLeadershipMetrics(server.registry, leadership)
    giveUp = () => forwarding.giveUp()
    changed = () => {
      forwarding.giveUp()
      // Nodes hear from the leader alone.
      server.endStreams()
    }
    server.app.addHook('onRoute', (route) => {
      const before = [route.onRequest ?? []].flat()
      route.onRequest = [
        ...before,
        async (request, reply) => {
          if (leadership.current !== undefined) return
          const { otherLeader } = leadership
          // The route finds out that nobody leads, and says why.
          if (otherLeader !== undefined) await forwarding.forward(otherLeader, request, reply)
        },
      ]
    })
  }
  return { leadership, peers, publicKeyPem, passOn, giveUp: () => giveUp() }
}
