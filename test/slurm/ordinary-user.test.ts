// The resource manager as sites run it: a user of its own, who may use Slurm like everybody else.
import { once } from 'node:events'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'

import { rfaas } from '../cli/support.js'
import { bytes, deployOptions, nativePackage } from '../integration/support.js'
import { lackOfOrdinaryUser, ordinaryUser } from './ordinary-user.js'
import { cleanUp, node, startHarvest, startSlurm } from './support.js'

afterEach(cleanUp)

const oneCore = { cores: 1, memory: '256MiB', duration: '10m', wait: '30s' }

describe.skipIf(lackOfOrdinaryUser !== undefined)('a resource manager of an ordinary user', () => {
  test('harvests, gives back what Slurm wants, and drains', async () => {
    // It sees no jobs but its own.
    const slurm = await startSlurm([node('n1')], { lines: 'PrivateData=jobs\n' })
    const user = ordinaryUser()
    const flags = {
      '--data-dir': join(user.home, 'manager'),
      '--slurm-log': join(user.home, 'harvest-%j.out'),
      '--slurm-data-dir': join(user.home, 'nodes'),
    }
    const { client, info, manager } = await startHarvest(slurm, flags, user.options)
    const first = await client.lease(oneCore)
    const functions = await first.deploy(nativePackage(), deployOptions)
    expect(await functions.invoke('echo', bytes(7))).toEqual(bytes(7))
    expect(await info()).toMatchObject({ state: 'ok', warnings: [] })
    expect(await slurm.harvestJobs()).toMatchObject([{ user_name: user.name }])

    first.on('revoking', () => void first.release())
    const target = ['--url', manager.url]
    const drained = await rfaas(['drain', 'n1', '--notice', '20s', '--wait', '20s', ...target])
    expect(drained).toMatchObject({ code: 0 })
    expect(await client.nodes()).toMatchObject([{ draining: true, freeCores: 2 }])
    expect(await rfaas(['undrain', 'n1', ...target])).toMatchObject({ code: 0 })

    const second = await client.lease(oneCore)
    await second.deploy(nativePackage(), deployOptions)
    const ended = once(second, 'ended')
    const job = await slurm.submit('echo here', { cores: 2, node: 'n1' })
    await ended
    await slurm.eventually('the job has run', async () => {
      return (await slurm.job(job)).job_state === 'COMPLETED'
    })
    expect((await slurm.harvestJobs())[0]).toMatchObject({ job_state: 'COMPLETED' })
    const third = await client.lease(oneCore)
    await third.release()
    expect(manager.complaints).toEqual([])
  })

  test('touches no jobs of others, and no nodes: it has no right to', async () => {
    const slurm = await startSlurm([node('n1')])
    const user = ordinaryUser()
    const flags = { '--data-dir': join(user.home, 'manager'), '--slurm-cap': '0' }
    const { info, manager, metric } = await startHarvest(slurm, flags, user.options)
    const asUser = (program: string, ...args: string[]): Promise<string> =>
      slurm.run(...user.command(program, args))
    // Whatever it is called: with this cap the manager gives back all that is its own.
    const job = await slurm.submit('sleep 600', {
      name: 'rfaas-harvest',
      comment: `rfaas ${manager.url} n1`,
      node: 'n1',
    })
    await slurm.eventually('the job runs', async () => {
      return (await slurm.job(job)).job_state === 'RUNNING'
    })
    const looks = await metric('rfaas_slurm_polls_total{outcome="ok"}')
    await slurm.eventually('it has looked twice more', async () => {
      return (await metric('rfaas_slurm_polls_total{outcome="ok"}')) > looks + 1
    })
    expect((await info()).jobs).toEqual([])
    expect(manager.complaints).toEqual([])
    await expect(asUser('scancel', `${job}`)).rejects.toThrow(/Access\/permission denied/)
    const drain = ['update', 'nodename=n1', 'state=drain', 'reason=none']
    await expect(asUser('scontrol', ...drain)).rejects.toThrow(/Invalid user id/)
    expect((await slurm.job(job)).job_state).toBe('RUNNING')
  })

  test('says so when Slurm hides nodes from it', async () => {
    const slurm = await startSlurm([node('n1')], { lines: 'PrivateData=nodes\n' })
    const user = ordinaryUser()
    const flags = { '--data-dir': join(user.home, 'manager') }
    const { info } = await startHarvest(slurm, flags, user.options)
    await slurm.eventually('it gets no answer', async () => (await info()).state === 'failing')
    expect((await info()).reason).toMatch(/^sinfo says: .*PrivateData/)
  })
})
