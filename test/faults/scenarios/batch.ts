// The batch system that nodes come from: a real Slurm, whose harvest jobs run the executor managers.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import type { Client, Functions, Lease, LeaseOptions } from '../../../lib/index.js'
import type { BatchCluster, BatchJob } from '../../slurm/batch-cluster.js'
import { FalseCommands } from '../../slurm/false-commands.js'
import { outcomeOf, recovered, sleepers, summary, Traffic, word } from '../calls.js'
import type { HarvestedCluster, HarvestOptions } from '../harvested-cluster.js'
import { nativePackage } from '../packages.js'
import { isAlive, signal, until, workersOf } from '../proc.js'
import type { Scenario, Seen } from '../scenario.js'
import { deployOptions, type Stage } from '../stage.js'

/** One of two cores: the other one shows whether more is granted. */
const leaseOptions: LeaseOptions = { cores: 1, memory: '256MiB', duration: '5m' }
/** Slurm takes its time: SlurmdTimeout is 10 s. */
const slurmMs = 60_000

interface Harvested {
  cluster: HarvestedCluster
  slurm: BatchCluster
  /** The harvest job that is the node. */
  job: BatchJob
  client: Client
  lease: Lease
  functions: Functions
}

async function harvested(stage: Stage, options: HarvestOptions = {}): Promise<Harvested> {
  const cluster = await stage.harvested(options)
  const client = await stage.client(cluster)
  const lease = await stage.lease(client, { ...leaseOptions, wait: '30s' })
  const functions = await lease.deploy(nativePackage(), deployOptions)
  await recovered(functions)
  const { slurm } = cluster
  return { cluster, slurm, job: await cluster.runningJob(), client, lease, functions }
}

/** Slurm is used again, with the same job and the same lease, and no call has failed. */
async function unharmed(
  { cluster, job, client, lease }: Harvested,
  traffic: Traffic,
): Promise<Seen> {
  const recoveredMs = await until(
    'Slurm is used again',
    async () => (await cluster.info()).state === 'ok',
  )
  assert.equal((await cluster.runningJob()).job_id, job.job_id)
  const { answered, failures } = await traffic.stop()
  assert.deepEqual(failures, [])
  const [known] = (await client.leases()).filter(({ id }) => id === lease.id)
  assert.equal(known?.state, 'active')
  return { seen: `${answered} ok, same job, same lease`, recoveredMs }
}

/** Calls that came too late say so. */
function assertRefused({ failures }: Traffic): void {
  for (const { code } of failures) assert.match(code, /^ERR_RFAAS_LEASE_(REVOKED|ENDED)$/)
}

/** What is idle is harvested again: a lease and calls on it, and how long that took. */
async function harvestedAgain(stage: Stage, client: Client): Promise<number> {
  const began = performance.now()
  const lease = await stage.lease(client, { ...leaseOptions, wait: '60s' })
  await recovered(await lease.deploy(nativePackage(), deployOptions))
  return performance.now() - began
}

export const batchSystem: Scenario[] = [
  {
    name: 'slurmctld-killed',
    fault: 'SIGKILL of slurmctld and a new start, calls in flight',
    promise:
      'No call fails and no lease ends; what is free can be leased; harvesting goes on with the same jobs when it is back.',
    needs: 'slurm',
    async run(stage) {
      const all = await harvested(stage)
      const { cluster, slurm, client, functions } = all
      await slurm.saved()
      const traffic = new Traffic(functions)
      await slurm.killController()
      await until('Slurm is known to fail', async () => (await cluster.info()).state === 'failing')
      await (await stage.lease(client, leaseOptions)).release()
      slurm.startController()
      return unharmed(all, traffic)
    },
  },
  {
    name: 'slurm-answers-nonsense',
    fault: 'The answers of sinfo are cut off, then those of squeue are no JSON, calls in flight',
    promise:
      'No call fails and no lease ends; what is free can be leased; the reason is told, and harvesting goes on with the same jobs when answers make sense again.',
    needs: 'slurm',
    async run(stage) {
      const commands = new FalseCommands(join(stage.folder, 'bin'))
      const all = await harvested(stage, { env: commands.env })
      const { cluster, client, functions } = all
      const traffic = new Traffic(functions)
      const told = async (reason: RegExp): Promise<boolean> =>
        reason.test((await cluster.info()).reason ?? '')
      commands.answer('sinfo', '/usr/bin/sinfo "$@" | head -c 1000')
      await until('sinfo is known to fail', () => told(/^sinfo printed what is not JSON/))
      await (await stage.lease(client, leaseOptions)).release()
      commands.answer('squeue', 'echo slurm_load_jobs: try again later')
      commands.restore('sinfo')
      await until('squeue is known to fail', () => told(/^squeue printed what is not JSON/))
      await (await stage.lease(client, leaseOptions)).release()
      commands.restore('squeue')
      return unharmed(all, traffic)
    },
  },
  {
    name: 'slurmd-killed',
    fault: 'SIGKILL of the slurmd of a harvested node, calls in flight, and a new start',
    promise:
      'Nothing more is granted on the node; calls go on until Slurm gives up the job, then the lease ends with notice; when slurmd is back the node is harvested again.',
    needs: 'slurm',
    withinMs: 240_000,
    async run(stage) {
      const { cluster, slurm, job, client, lease, functions } = await harvested(stage)
      const executorManager = cluster.executorManagerOf(job)
      const heard: string[] = []
      lease.on('revoking', () => heard.push('revoking')).on('ended', () => heard.push('ended'))
      const ended = once(lease, 'ended', { signal: AbortSignal.timeout(slurmMs) })
      const traffic = new Traffic(functions)
      await slurm.killNode('n1')
      await until(
        'nothing is granted there',
        async () => (await client.nodes())[0]!.draining,
        slurmMs,
      )
      await assert.rejects(client.lease(leaseOptions), { code: 'ERR_RFAAS_NO_CAPACITY' })
      await traffic.next()
      await ended
      assert.deepEqual(heard, ['revoking', 'ended'])
      await traffic.stop()
      assertRefused(traffic)
      slurm.startNode('n1')
      await until('the old job has ended', () => !isAlive(executorManager), slurmMs)
      const recoveredMs = await harvestedAgain(stage, client)
      return { seen: `${traffic.answered} ok, then lease ended; harvested again`, recoveredMs }
    },
  },
  {
    name: 'harvest-job-killed',
    fault: 'SIGKILL of the executor manager inside its harvest job, calls in flight',
    promise:
      'Its workers die with it: calls in flight end with ERR_RFAAS_WORKER_LOST and `mayHaveRun`; when Slurm says that the job has failed its lease is closed, which the client hears within seconds, and the machine is harvested again after a pause.',
    needs: 'slurm',
    async run(stage) {
      const { cluster, slurm, job, client, lease, functions } = await harvested(stage)
      const executorManager = cluster.executorManagerOf(job)
      const workers = workersOf(executorManager)
      const ended = once(lease, 'ended', { signal: AbortSignal.timeout(2 * slurmMs) })
      const calls = sleepers(functions, 4, 30_000, 60_000)
      await sleep(300)
      signal([executorManager], 'SIGKILL')
      const outcomes = await calls
      for (const { code, mayHaveRun } of outcomes) {
        assert.deepEqual([code, mayHaveRun], ['ERR_RFAAS_WORKER_LOST', true])
      }
      await until('its workers have ended', () => !workers.some(isAlive))
      await until(
        'the lease is closed',
        async () => (await client.leases()).find(({ id }) => id === lease.id)?.state === 'closed',
        slurmMs,
      )
      assert.equal((await slurm.job(job.job_id)).job_state, 'FAILED')
      await ended
      const recoveredMs = await harvestedAgain(stage, client)
      return { seen: `${summary(outcomes)}; harvested again`, recoveredMs }
    },
  },
  {
    name: 'slurm-preempts',
    fault: 'A regular job of Slurm wants the cores back, calls in flight',
    promise:
      'The lease gets notice: a call that runs may finish, those that come too late end with ERR_RFAAS_LEASE_REVOKED or ERR_RFAAS_LEASE_ENDED; the node is clean before Slurm has to kill.',
    needs: 'slurm',
    async run(stage) {
      const { slurm, job, client, lease, functions } = await harvested(stage)
      const ended = once(lease, 'ended', { signal: AbortSignal.timeout(slurmMs) })
      const traffic = new Traffic(functions)
      const revoking = once(lease, 'revoking', { signal: AbortSignal.timeout(slurmMs) })
      const began = performance.now()
      const regular = await slurm.submit('echo here', { cores: 2, node: 'n1' })
      await revoking
      await ended
      await until(
        'the job has run',
        async () => (await slurm.job(regular)).job_state === 'COMPLETED',
        slurmMs,
      )
      const startedMs = Math.round(performance.now() - began)
      await traffic.stop()
      assertRefused(traffic)
      const last = await outcomeOf(functions.invoke('echo', word(1), { timeoutMs: 1000 }), 1000)
      assert.equal(last.code, 'ERR_RFAAS_LEASE_ENDED')
      // Cancelled it would be if Slurm had had to kill it.
      assert.equal((await slurm.job(job.job_id)).job_state, 'COMPLETED')
      const recoveredMs = await harvestedAgain(stage, client)
      return { seen: `${traffic.answered} ok; the job was over after ${startedMs} ms`, recoveredMs }
    },
  },
  {
    name: 'slurm-preempts-one-of-two',
    fault:
      'A regular job of Slurm wants one of two machines back that a lease spans, calls in flight',
    promise:
      'No call fails: the lease goes on on the other machine, its client is told of the part that goes; that machine is clean before Slurm has to kill.',
    needs: 'slurm',
    async run(stage) {
      const cluster = await stage.harvested({ nodes: [1, 1] })
      const { slurm } = cluster
      const client = await stage.client(cluster)
      const options = { ...leaseOptions, cores: 2, nodes: 2, wait: '30s' }
      const lease = await stage.lease(client, options)
      const functions = await lease.deploy(nativePackage(), deployOptions)
      await recovered(functions)
      const [job] = (await slurm.harvestJobs('RUNNING')).filter(({ nodes }) => nodes === 'n1')
      assert(job !== undefined)
      const heard: string[] = []
      lease.on('partRevoking', (node) => heard.push(`${node} revoking`))
      lease.on('partLost', (node) => heard.push(`${node} lost`))
      const lost = once(lease, 'partLost', { signal: AbortSignal.timeout(slurmMs) })
      const traffic = new Traffic(functions)
      await slurm.submit('sleep 1', { cores: 1, node: 'n1' })
      await lost
      await traffic.next()
      assert.deepEqual(heard, ['n1 revoking', 'n1 lost'])
      await until(
        'the harvest job is over',
        async () => (await slurm.job(job.job_id)).job_state === 'COMPLETED',
        slurmMs,
      )
      const recoveredMs = await harvestedAgain(stage, client)
      const { answered, failures } = await traffic.stop()
      assert.deepEqual(failures, [])
      return { seen: `${answered} ok, then on n2 alone`, recoveredMs }
    },
  },
]
