import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import { chooseCores, parseCoreList } from '../../bench/cores.js'
import type { Machine } from '../../bench/machine.js'
import type { TrialResult } from '../../bench/trials.js'

const run = promisify(execFile)
const program = join(import.meta.dirname, '..', '..', 'dist', 'bench', 'run.js')

describe('cores', () => {
  test('a list of cores is read as the kernel writes it', () => {
    expect(parseCoreList('0-2,5')).toEqual([0, 1, 2, 5])
    expect(parseCoreList('7\n')).toEqual([7])
    expect(() => parseCoreList('0-')).toThrow("'0-'")
  })

  test('client and worker on the same core are refused', () => {
    expect(() => chooseCores('0,0')).toThrow('two different ones')
  })

  test('a core that this process may not use is refused', () => {
    expect(() => chooseCores('0,4095')).toThrow('4095 is none of')
  })
})

// The floor spins on both sides: on one core it would be a benchmark of the scheduler.
const cores = availableParallelism()
if (cores < 2) console.warn('npm run bench: skipped, it needs two cores and there is one')
describe.runIf(cores >= 2)('npm run bench', () => {
  let folder: string
  let output: string
  let results: { machine: Machine; trials: TrialResult[] }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
    const file = join(folder, 'results.json')
    const few = ['--samples', '64', '--rounds', '2', '--budget', '200', '--payloads', '8,64KiB']
    const { stdout } = await run(process.execPath, [program, 'latency', ...few, '--json', file])
    output = stdout
    results = JSON.parse(await readFile(file, 'utf8')) as typeof results
  })

  afterAll(() => rm(folder, { recursive: true, force: true }))

  const drivers = ['floor', 'invokeSync', 'invoke', 'warm', 'node', 'http']

  test('every driver and the floor have a result for every payload', () => {
    const found = results.trials.map(({ driver, payloadBytes }) => `${driver} ${payloadBytes}`)
    const expected = [8, 65_536].flatMap((bytes) => drivers.map((name) => `${name} ${bytes}`))
    expect(found.sort()).toEqual(expected.sort())
  })

  test('a result has ordered percentiles, its samples, and its ratio within the rounds', () => {
    for (const result of results.trials) {
      expect(result).toMatchObject({ trial: 'latency', provider: 'shm' })
      const { minNs, p50Ns, p99Ns, p999Ns, maxNs } = result
      for (const ns of [minNs, p50Ns, p99Ns, p999Ns, maxNs]) expect(ns).toBeGreaterThan(0)
      expect(p50Ns).toBeLessThanOrEqual(p99Ns)
      expect(p99Ns).toBeLessThanOrEqual(p999Ns)
      expect(p50Ns).toBeGreaterThanOrEqual(minNs)
      expect(p999Ns).toBeLessThanOrEqual(maxNs)
      expect(result.samples).toBeLessThanOrEqual(64 * result.rounds)
      expect(result.ratioToFloor).toBeGreaterThanOrEqual(result.ratioMin)
      expect(result.ratioToFloor).toBeLessThanOrEqual(result.ratioMax)
    }
  })

  test('each driver was measured between floors', () => {
    for (const { driver, rounds, floors } of results.trials) {
      expect(floors).toHaveLength(driver === 'floor' ? 0 : rounds + 1)
    }
  })

  test('the machine is described', () => {
    const { cpu, kernel, node, commit, provider, device, clientCore, workerCore } = results.machine
    for (const text of [cpu, kernel, commit, device]) expect(text).not.toBe('')
    expect(node).toBe(process.version)
    expect(provider).toBe('shm')
    expect(clientCore).not.toBe(workerCore)
  })

  test('the table has one line per result', () => {
    const rows = output.split('\n').filter((line) => /^ *(8 B|64 KiB)/.test(line))
    expect(rows).toHaveLength(results.trials.length)
    expect(output).toContain('× floor')
  })

  test.each([
    [['speed'], "trial 'speed' is unknown: must be of latency"],
    [['latency', '--drivers', 'grpc'], "'grpc' is none of invokeSync"],
    [['latency', '--samples', '0'], 'must be a whole number from 1'],
    [['latency', '--cores', '0,0'], 'two different ones are needed'],
  ])('%j is refused with what is allowed', async (args, message) => {
    const failed = run(process.execPath, [program, ...args])
    await expect(failed).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining(message),
    })
  })
})
