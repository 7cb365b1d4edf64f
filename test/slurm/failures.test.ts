// A batch system that dies, hangs or talks nonsense, and jobs that end without a word.
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'

import { request } from '../../lib/control/http.js'
import { UsageEntries } from '../../lib/control/report-schemas.js'
import type { Functions } from '../../lib/index.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { FalseCommands } from './false-commands.js'
import {
  cleanUp,
  node,
  startHarvest,
  startSlurm,
  temporaryFolder,
  type Harvest,
} from './support.js'

afterEach(cleanUp)

const oneCore = { cores: 1, memory: '256MiB', duration: '10m', wait: '30s' }

async function health({ manager }: Harvest): Promise<string[]> {
  const answer = await fetch(`${manager.url}/healthz`)
  expect(answer.status).toBe(200)
  return ((await answer.json()) as { warnings: string[] }).warnings
}

/** Slurm fails: the operator is told, and the lease goes on. */
async function isToldAndGoesOn(harvest: Harvest, functions: Functions, why: RegExp): Promise<void> {
  await harvest.slurm.eventually(`the manager says that Slurm fails: ${why}`, async () => {
    const { state, reason } = await harvest.info()
    return state === 'failing' && why.test(reason ?? '')
  })
  expect(await health(harvest)).toEqual([expect.stringContaining('Slurm')])
  expect(await harvest.metric('rfaas_slurm_up')).toBe(0)
  expect(harvest.manager.complaints.join()).toMatch(why)
  expect(await functions.invoke('echo', bytes(3))).toEqual(bytes(3))
}

describe('a Slurm that fails costs no running lease', () => {
  test('when its controller is killed, and is used again when it is back', async () => {
    const slurm = await startSlurm([node('n1')])
    const harvest = await startHarvest(slurm)
    const lease = await harvest.client.lease(oneCore)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    expect(await health(harvest)).toEqual([])
    await slurm.saved()
    await slurm.killController()
    await isToldAndGoesOn(harvest, functions, /(sinfo|squeue) says: /)
    // What is free can still be leased.
    const another = await harvest.client.lease(oneCore)
    await another.release()
    slurm.startController()
    await slurm.eventually('Slurm is used again', async () => {
      return (await harvest.metric('rfaas_slurm_up')) === 1
    })
    expect(await health(harvest)).toEqual([])
    expect((await harvest.info()).jobs).toMatchObject([{ node: 'n1', state: 'running' }])
    expect(await functions.invoke('echo', bytes(4))).toEqual(bytes(4))
    await lease.release()
  })

  test('when its answers are garbage, empty, forged or never come', async () => {
    const slurm = await startSlurm([node('n1')])
    const commands = new FalseCommands(join(temporaryFolder(), 'bin'))
    const flags = { '--slurm-command-timeout-ms': '2s' }
    const harvest = await startHarvest(slurm, flags, { env: commands.env })
    const lease = await harvest.client.lease(oneCore)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    for (const [program, script, why] of [
      ['sinfo', 'head -c 100000 /dev/urandom', /sinfo printed what is not JSON/],
      ['squeue', 'exit 0', /squeue printed what is not JSON: nothing/],
      [
        'sinfo',
        `echo '{"errors":[],"nodes":[{"name":"; rm -rf /"}]}'`,
        /answer of sinfo is not valid: nodes/,
      ],
      ['squeue', 'echo lost >&2; exit 7', /squeue ended with exit code 7: lost/],
      ['sinfo', 'sleep 600 & sleep 600', /sinfo did not answer within 2000 ms/],
    ] as const) {
      commands.answer(program, script)
      await isToldAndGoesOn(harvest, functions, why)
      commands.restore(program)
      await slurm.eventually('it is well again', async () => {
        return (await harvest.info()).state === 'ok'
      })
    }
    // What makes sense and is wrong: no job is ours, no node is there.
    commands.answer('squeue', `echo '{"errors":[],"jobs":[]}'`)
    await slurm.eventually('no job is known', async () => (await harvest.info()).jobs.length === 0)
    commands.answer('sinfo', `echo '{"errors":[],"nodes":[]}'`)
    await slurm.eventually(
      'no node is known',
      async () => (await harvest.info()).nodes.length === 0,
    )
    expect(await functions.invoke('echo', bytes(5))).toEqual(bytes(5))
    expect((await harvest.client.nodes()).map(({ state }) => state)).toEqual(['up'])
    await lease.release()
  })
})

describe('a job that is cancelled while it waits', () => {
  test('keeps nobody from harvesting', async () => {
    const slurm = await startSlurm([node('n1')])
    const job = await slurm.submit('true', { held: true })
    await slurm.run('scancel', [`${job}`])
    const harvest = await startHarvest(slurm)
    const lease = await harvest.client.lease(oneCore)
    expect((await slurm.job(job)).job_state).toBe('CANCELLED')
    expect(await harvest.info()).toMatchObject({ state: 'ok', jobs: [{ node: 'n1' }] })
    await lease.release()
  })
})

describe('a Slurm that would kill without notice', () => {
  test('is told to its operator', async () => {
    const slurm = await startSlurm([node('n1')], { graceSeconds: 5 })
    const harvest = await startHarvest(slurm)
    await slurm.eventually('it was looked at', async () => (await harvest.info()).state === 'ok')
    expect((await harvest.info()).warnings).toEqual([
      expect.stringMatching(/^GraceTime of partition faas is 5 s/),
    ])
    expect(await health(harvest)).toEqual(['Slurm is not set up for harvesting'])
  })
})

describe('a resource manager that is killed', () => {
  test('finds its harvest jobs again, and starts no others', async () => {
    const slurm = await startSlurm([node('n1')])
    const folder = temporaryFolder()
    const flags = {
      '--data-dir': join(folder, 'manager'),
      '--slurm-data-dir': join(folder, 'nodes'),
    }
    const first = await startHarvest(slurm, flags)
    const lease = await first.client.lease(oneCore)
    const functions = await lease.deploy(nativePackage(), deployOptions)
    await first.manager.end('SIGKILL')
    const second = await startHarvest(slurm, { ...flags, '--port': first.manager.port })
    await slurm.eventually('the node is back, after two looks', async () => {
      const looks = await second.metric('rfaas_slurm_polls_total{outcome="ok"}')
      const [n1] = await second.client.nodes()
      return n1?.state === 'up' && looks > 1
    })
    expect((await second.info()).jobs).toMatchObject([{ node: 'n1', state: 'running' }])
    expect(await slurm.harvestJobs()).toHaveLength(1)
    expect(await functions.invoke('echo', bytes(6))).toEqual(bytes(6))
    await lease.release()
  })
})

describe('an executor manager that is killed in its job', () => {
  test('is lost: its leases are closed when Slurm says that the job is over', async () => {
    const slurm = await startSlurm([node('n1')])
    const harvest = await startHarvest(slurm, { '--node-timeout-ms': '1s' })
    const lease = await harvest.client.lease(oneCore)
    const [job] = await slurm.harvestJobs('RUNNING')
    const [manager] = slurm.processes('executor-manager/src/main.js')
    process.kill(manager!, 'SIGKILL')
    const entries = async () => {
      const url = `${harvest.manager.url}/v1/usage/entries`
      return (await request(url, { schema: UsageEntries })).entries
    }
    await slurm.eventually('the lease is closed', async () => (await entries()).length > 0)
    expect(await entries()).toMatchObject([{ id: lease.id, job: `${job!.job_id}`, reason: 'lost' }])
    expect((await slurm.job(job!.job_id)).job_state).toBe('FAILED')
    expect(harvest.manager.complaints.join()).toMatch(/harvest job failed/)
  })
})
