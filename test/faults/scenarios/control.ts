// Requests of the control plane that come more than once, or too late.
import assert from 'node:assert/strict'

import { request } from '../../../lib/control/http.js'
import { LeaseGrant } from '../../../lib/control/schemas.js'
import type { RfaasError } from '../../../lib/index.js'
import { Client } from '../../../lib/index.js'
import { patienceMs, sleepers, summary, Traffic } from '../calls.js'
import { nativePackage } from '../packages.js'
import { until } from '../proc.js'
import { Replayer } from '../replayer.js'
import type { Scenario } from '../scenario.js'
import { deployOptions } from '../stage.js'

export const control: Scenario[] = [
  {
    name: 'requests-duplicated',
    fault: 'every request to the resource manager arrives twice, and all of them once more later',
    promise:
      'A repetition changes nothing: one lease, one ledger entry, no core freed under a running call, and never an internal error.',
    async run(stage) {
      const cluster = await stage.cluster({ nodes: [] })
      const proxy = await Replayer.start(cluster.url)
      await cluster.addNode('0,1', ['--resource-manager', proxy.url])
      const client = await Client.connect(proxy.url)
      const lease = await stage.lease(client)
      const functions = await lease.deploy(nativePackage(), deployOptions)
      const traffic = new Traffic(functions)
      await until('it is active', async () => (await client.leases())[0]?.state === 'active')
      await lease.renew()
      await proxy.replay()
      const during = await client.leases()
      assert.deepEqual(
        during.map(({ id, state }) => [id, state]),
        [[lease.id, 'active']],
      )
      assert.equal((await client.nodes())[0]?.freeCores, 0)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      await lease.release()
      await proxy.replay()
      await until('the cores are free', async () => (await client.nodes())[0]?.freeCores === 2)
      assert.equal((await client.usage())[0]?.leases, 1)
      assert.equal((await client.nodes())[0]?.state, 'up')
      const broken = proxy.answers.filter(({ status }) => status >= 500)
      assert.deepEqual(broken, [])
      return {
        seen: `${proxy.answers.length} repetitions; ${answered} ok; one lease in the ledger`,
      }
    },
  },
  {
    name: 'token-replayed',
    fault: 'the token of a lease that is over is shown again, also to a restarted executor manager',
    promise:
      'It opens nothing: ERR_RFAAS_LEASE_ENDED or ERR_RFAAS_UNAUTHORIZED, whoever has the cores now.',
    async run(stage) {
      const cluster = await stage.cluster()
      const body = { cores: 2, memoryBytes: 2 ** 28, durationMs: 300_000 }
      const old = await request(`${cluster.url}/v1/leases`, {
        method: 'POST',
        body,
        schema: LeaseGrant,
      })
      stage.audit.granted(old.lease.id)
      const token = old.tokens[0]!
      const knock = async (): Promise<string> => {
        try {
          const path = `/v1/leases/${old.lease.parts[0]!.id}/events`
          const answer = await fetch(`${cluster.node().url}${path}`, {
            headers: { authorization: `Bearer ${token}` },
            signal: AbortSignal.timeout(patienceMs),
          })
          const { error } = (await answer.json()) as { error?: { code: string } }
          return error?.code ?? `answered ${answer.status}`
        } catch (error) {
          return String(error)
        }
      }
      await request(`${cluster.url}/v1/leases/${old.lease.id}`, { method: 'DELETE' })
      const client = await stage.client(cluster)
      await until('the cores are free', async () => (await client.nodes())[0]?.freeCores === 2)
      const answers = [await knock()]
      await cluster.node().end('SIGKILL')
      await cluster.restartNode()
      await cluster.registered()
      answers.push(await knock())
      const lease = await stage.lease(client)
      answers.push(await knock())
      for (const code of answers) assert.match(code, /^ERR_RFAAS_(LEASE_ENDED|UNAUTHORIZED)$/)
      const functions = await lease.deploy(nativePackage(), deployOptions)
      assert.equal(summary(await sleepers(functions, 4, 1)), '4 ok')
      return { seen: answers.join(', ') }
    },
  },
  {
    name: 'name-taken',
    fault: 'a node of another host registers under the name of one that is up',
    promise: 'It is refused and told why; the node and its calls go on.',
    async run(stage) {
      const { cluster, client, functions } = await stage.deployed()
      const traffic = new Traffic(functions)
      const [node] = await client.nodes()
      const { name, memoryBytes, providers } = node!
      const stranger = { name, url: 'http://127.0.0.1:1', cores: [0, 1], memoryBytes, providers }
      const registration = { ...stranger, hostId: 'another', sequence: 2 ** 50, leases: [] }
      const refused = request(`${cluster.url}/v1/nodes`, { method: 'POST', body: registration })
      await assert.rejects(refused, (error: RfaasError) => error.field === 'name')
      assert.deepEqual((await client.nodes())[0]?.url, node!.url)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `refused; ${answered} ok` }
    },
  },
]
