// An etcd whose database is as large as it may be takes no change any more, until its operator has made
// room and disarmed the alarm.
import { afterEach, expect, it } from 'vitest'
import { request } from '../../lib/control/http.js'
import { Health, LeaseList } from '../../lib/control/schemas.js'
import type { RfaasError } from '../../lib/index.js'
import { EtcdCluster, lackOfEtcd } from './etcd-cluster.js'
import { cleanUp, grant, MiB, onCleanUp, registeredNode, renew, startManager } from './support.js'

afterEach(cleanUp)

it.skipIf(lackOfEtcd !== undefined)(
  'refuses grants while etcd is out of space, says what to do, and goes on afterwards',
  async () => {
    const etcd = await EtcdCluster.start({ hasty: true, quotaBytes: 16 * MiB })
    onCleanUp(() => etcd.stop())
    const ask = async (path: string, body: object): Promise<Response> =>
      fetch(`${etcd.urls[0]}/v3/${path}`, { method: 'POST', body: JSON.stringify(body) })
    const { url } = await startManager({ store: 'etcd', etcd: etcd.urls, leaderTimeoutMs: 2000 })
    const node = await registeredNode(url)
    const { lease } = await grant(url)
    await node.active(lease.id)

    const filling = { key: btoa('filling'), value: btoa('x'.repeat(MiB)) }
    while ((await ask('kv/put', filling)).ok);
    const why = /database space exceeded: .*compact.*defrag.*alarm disarm/
    const refusal = (): Promise<string> =>
      grant(url).then(
        () => 'granted',
        (error: unknown) => (error as RfaasError).message,
      )
    await expect.poll(refusal, { timeout: 20_000 }).toMatch(why)
    // Whoever leads by then cannot: it says the same.
    await expect.poll(() => complaint(url), { timeout: 20_000 }).toMatch(why)

    const { alarms } = (await (await ask('maintenance/alarm', {})).json()) as { alarms: object[] }
    expect(alarms).toHaveLength(1)
    const { kvs } = (await (await ask('kv/range', { key: filling.key })).json()) as {
      kvs: { mod_revision: string }[]
    }
    for (const [path, body] of [
      ['kv/deleterange', { key: filling.key }],
      ['kv/compaction', { revision: kvs[0]!.mod_revision, physical: true }],
      ['maintenance/defragment', {}],
      ['maintenance/alarm', { action: 'DEACTIVATE', ...alarms[0] }],
    ] as const) {
      expect(await (await ask(path, body)).json()).not.toHaveProperty('error')
    }
    await expect.poll(() => complaint(url), { timeout: 20_000 }).toBe('')
    // Its node is told to register anew, as after every change of who leads.
    await node.register({ leases: [lease.id] })
    const { leases } = await request(`${url}/v1/leases`, { schema: LeaseList })
    expect(leases.map(({ id, state }) => [id, state])).toEqual([[lease.id, 'active']])
    const renewed = await renew(url, lease.id, 60_000)
    const next = await grant(url)
    expect(next.lease.epoch).toBeGreaterThan(renewed.lease.epoch)
  },
  60_000,
)

/** Why nobody leads; nothing if somebody does. */
async function complaint(url: string): Promise<string> {
  const health = request(`${url}/healthz`, { schema: Health })
  return health.then(
    () => '',
    (error: unknown) => (error as RfaasError).message,
  )
}
