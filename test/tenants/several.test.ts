import { afterEach, describe, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { Health, LeaseList } from '../../lib/control/schemas.js'
import { Transport } from '../../lib/control/transport.js'
import { Client } from '../../lib/index.js'
import { EtcdCluster, lackOfEtcd } from '../resource-manager/etcd-cluster.js'
import { Authority, cleanUp, Keys, onCleanUp, startManager, startNode } from './support.js'

afterEach(cleanUp)

describe.skipIf(lackOfEtcd !== undefined)('several resource managers with keys and TLS', () => {
  it('know of each other whose request it is, and believe nobody else', async () => {
    const authority = new Authority()
    const { cert, key } = authority.issue('manager')
    const own = authority.issue('etcd')
    const etcd = await EtcdCluster.start({
      hasty: true,
      tls: { ...own, ca: authority.certificate },
    })
    onCleanUp(() => etcd.stop())
    const keys = new Keys()
    const options = {
      store: 'etcd' as const,
      etcd: etcd.urls,
      etcdCa: authority.certificate,
      etcdCert: cert,
      etcdKey: key,
      leaderTimeoutMs: 2000,
      keysFile: keys.path,
      tlsCert: cert,
      tlsKey: key,
      nodeCa: authority.certificate,
      peerCa: authority.certificate,
    }
    const leader = await startManager(options)
    const follower = await startManager(options)
    const ca = authority.certificate
    const transport = new Transport({ ca })
    const ask = { transport, schema: Health }
    expect((await request(`${follower}/healthz`, ask)).role).toBe('follower')

    await startNode({
      name: 'n1',
      resourceManager: follower,
      key: keys.node('n1'),
      ca,
      ...nodeCertificate(authority),
    })
    await using alice = await Client.connect(follower, { key: keys.tenant('alice'), ca })
    await using bob = await Client.connect(`${follower},${leader}`, { key: keys.tenant('bob'), ca })
    const lease = await alice.lease({ memory: '1MiB' })
    expect((await alice.leases()).map(({ id }) => id)).toEqual([lease.id])
    expect(await bob.leases()).toEqual([])
    await expect(bob.drain('n1')).rejects.toMatchObject({ code: 'ERR_RFAAS_FORBIDDEN' })

    // What a manager sends to another one, without its secret.
    const operator = { tenant: 'operator', role: 'operator', keyId: 'forged' }
    const forged = transport.send(new URL(`${leader}/v1/leases`), 'GET', {
      authorization: `Bearer rfp_${'A'.repeat(43)}`,
      'rfaas-principal': Buffer.from(JSON.stringify(operator)).toString('base64url'),
    })
    const status = await new Promise((resolve, reject) => {
      forged.once('response', ({ statusCode }) => resolve(statusCode))
      forged.once('error', reject)
      forged.end()
    })
    expect(status).toBe(401)
    forged.destroy()
    const asOperator = { transport, token: keys.operator(), schema: LeaseList }
    expect((await request(`${follower}/v1/leases`, asOperator)).leases).toHaveLength(1)
  })
})

function nodeCertificate(authority: Authority): { tlsCert: string; tlsKey: string } {
  const { cert, key } = authority.issue('n1')
  return { tlsCert: cert, tlsKey: key }
}
