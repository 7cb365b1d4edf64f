// The program itself, with so few samples that its figures mean nothing: that everything is measured
// and arrives where it should.
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import {
  chooseCores,
  clientCounts,
  parseCoreList,
  workerCores,
  workerCounts,
} from '../../bench/cores.js'
import type { Result, ResultFile } from '../../bench/results.js'
import { trials } from '../../bench/trials/index.js'

const run = promisify(execFile)
const program = join(import.meta.dirname, '..', '..', 'dist', 'bench', 'run.js')

describe('cores', () => {
  test('a list of cores is read as the kernel writes it', () => {
    expect(parseCoreList('0-2,5')).toEqual([0, 1, 2, 5])
    expect(parseCoreList('7\n')).toEqual([7])
    expect(() => parseCoreList('0-')).toThrow("'0-'")
  })

  test('one core, or the same twice, is refused', () => {
    expect(() => chooseCores('0')).toThrow('at least two different ones')
    expect(() => chooseCores('0,0')).toThrow('at least two different ones')
  })

  test('a core that this process may not use is refused', () => {
    expect(() => chooseCores('0,4095')).toThrow('4095 is none of')
  })

  test('on two cores the second worker and the second client share what there is', () => {
    const two = { client: 0, workers: [1] }
    expect(workerCounts(two)).toEqual([1, 2])
    expect(clientCounts(two)).toEqual([1, 2])
    expect(workerCores(two, 2)).toEqual([1, 0])
  })

  test('on many cores every worker and every client has one', () => {
    const nine = { client: 0, workers: [1, 2, 3, 4, 5, 6, 7, 8] }
    expect(workerCounts(nine)).toEqual([1, 2, 4, 8])
    expect(clientCounts(nine)).toEqual([1, 2, 4])
  })
})

// Both sides of the floor spin: on one core it would be a benchmark of the scheduler.
const cores = availableParallelism()
if (cores < 2) console.warn('npm run bench: skipped, it needs two cores and there is one')
const few = ['--samples', '3', '--budget', '20', '--payloads', '8,64KiB']

describe.runIf(cores >= 2)('npm run bench', () => {
  let folder: string
  let file: ResultFile
  let output: string

  const of = (trial: string, metric: string): Result[] =>
    file.results.filter((result) => result.trial === trial && result.metric === metric)
  const names = (results: readonly Result[]): string[] => [
    ...new Set(results.map(({ driver }) => driver)),
  ]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rfaas-bench-'))
    const json = join(folder, 'results.json')
    // Every trial, with one driver of each kind in most of them.
    const args = [...few, '--rounds', '1', '--json', json, '--html', join(folder, 'report.html')]
    const drivers = ['--drivers', 'invokeSync,invoke,warm,node,nodeAwaited,direct,fastify']
    output = (await run(process.execPath, [program, ...args, ...drivers])).stdout
    file = JSON.parse(await readFile(json, 'utf8')) as ResultFile
  }, 300_000)

  afterAll(() => rm(folder, { recursive: true, force: true }))

  test('every trial has results', () => {
    expect([...new Set(file.results.map(({ trial }) => trial))]).toEqual(Object.keys(trials))
  })

  test('a result has its rounds within their extremes, and percentiles in order', () => {
    for (const { rounds, median, min, max, distribution } of file.results) {
      expect(rounds.length).toBeGreaterThan(0)
      expect(min).toBeLessThanOrEqual(median)
      expect(median).toBeLessThanOrEqual(max)
      if (distribution === undefined) continue
      const { minNs, p50Ns, p90Ns, p99Ns, p999Ns, maxNs } = distribution
      const inOrder = [minNs, p50Ns, p90Ns, p99Ns, p999Ns, maxNs]
      expect(inOrder).toEqual([...inOrder].sort((a, b) => a - b))
      expect(minNs).toBeGreaterThan(0)
    }
  })

  test('every driver has a round trip for every payload, beside the floor', () => {
    const found = of('latency', 'round trip')
    const drivers = ['invokeSync', 'invoke', 'warm', 'node', 'fastify']
    expect(names(found).sort()).toEqual(['eventfd', 'floor', ...drivers].sort())
    for (const bytes of [8, 65_536]) {
      const same = found.filter(({ params }) => params['payloadBytes'] === bytes)
      expect(same).toHaveLength(drivers.length + 2)
      // Before and after each driver.
      expect(same.find(({ driver }) => driver === 'floor')!.rounds).toHaveLength(10)
      for (const driver of drivers) {
        const { ratios } = same.find((result) => result.driver === driver)!
        expect(ratios.map(({ to }) => to)).toEqual(
          driver === 'warm' ? ['floor', 'eventfd'] : ['floor'],
        )
      }
    }
  })

  test('calls per second have their cost in CPU time, and the ring’s rate beside them', () => {
    const rates = of('depth', 'calls per second')
    const inFlight = (driver: string): number[] =>
      rates.filter((one) => one.driver === driver).map(({ params }) => Number(params['depth']))
    expect(inFlight('invoke')).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256])
    expect(inFlight('invokeSync')).toEqual([1])
    expect(inFlight('floor')).toEqual(inFlight('invoke'))
    for (const { median } of rates) expect(median).toBeGreaterThan(0)
    for (const { median } of of('depth', 'CPU time per call')) expect(median).toBeGreaterThan(0)
  })

  test('a cold start is taken apart', () => {
    const parts = (driver: string, state: string): unknown[] =>
      of('cold-start', 'start')
        .filter((one) => one.driver === driver && one.params['state'] === state)
        .map(({ params }) => params['part'])
    const known = ['lease', 'spawn', 'connect', 'first call', 'total']
    for (const driver of ['native', 'node']) {
      // A package this short comes with the request that starts it.
      for (const state of ['first', 'cached', 'pool']) expect(parts(driver, state)).toEqual(known)
    }
    expect(parts('fastify', 'server')).toEqual(['spawn', 'first call', 'total'])
    expect(parts('bareRequests', 'floor')).toEqual(['lease', 'spawn', 'first call', 'total'])
  })

  test('workers that idle have memory, and leases a rate', () => {
    const memory = of('footprint', 'unshared memory per worker')
    expect(names(memory)).toEqual(['native', 'node'])
    for (const { median } of memory) expect(median).toBeGreaterThan(64 * 1024)
    for (const { median } of of('leases', 'grants per second')) expect(median).toBeGreaterThan(0)
  })

  test('the machine is described', () => {
    const { cpu, kernel, node, commit, provider, device, workerCores } = file.machine
    for (const text of [cpu, kernel, commit, device]) expect(text).not.toBe('')
    expect(node).toBe(process.version)
    expect(provider).toBe('shm')
    expect(workerCores).not.toContain(file.machine.clientCore)
  })

  test('perftest is skipped with the reason', () => {
    expect(file.skipped).toContainEqual(
      expect.objectContaining({ driver: 'ib_write_lat', reason: expect.stringContaining('verbs') }),
    )
    expect(output).toContain('ib_write_lat was not measured')
  })

  test('the table has a line per result, and the report its figures', async () => {
    for (const name of Object.keys(trials)) expect(output).toContain(`\n${name}\n`)
    expect(output.split('\n').filter((line) => line.includes('×')).length).toBeGreaterThan(10)
    const html = await readFile(join(folder, 'report.html'), 'utf8')
    expect(html.match(/<svg /g)!.length).toBeGreaterThan(8)
  })

  test('a file can be compared, checked against the targets, and reported again', async () => {
    const json = join(folder, 'results.json')
    const bench = async (...args: string[]) =>
      (await run(process.execPath, [program, ...args])).stdout
    expect(await bench('compare', json, json)).toContain('rfaas: 0 worse, 0 better')
    expect(await bench('targets', json)).toMatch(/hot `invokeSync`.*npm run bench -- latency/)
    expect(await bench('report', json, join(folder, 'again.html'))).toContain('written to')
  })

  test('all peers answer the same', async () => {
    const json = join(folder, 'peers.json')
    const only = ['--drivers', 'piscina,grpc,fastify,functionsFramework', '--rounds', '1']
    await run(process.execPath, [program, 'function', ...few, ...only, '--json', json])
    const { results } = JSON.parse(await readFile(json, 'utf8')) as ResultFile
    const drivers = ['floor', 'piscina', 'grpc', 'fastify', 'functionsFramework']
    expect(names(results)).toEqual(drivers)
    for (const { driver, rounds } of results) {
      expect(rounds).toHaveLength(driver === 'floor' ? 8 : 1)
    }
  })

  test.each([
    [['speed'], "trial 'speed' is unknown: must be of latency"],
    [['latency', '--drivers', 'soap'], "'soap' is none of invokeSync"],
    [['latency', '--samples', '0'], 'must be a whole number from 1'],
    [['latency', '--cores', '0,0'], 'two different ones are needed'],
    [['targets', '/nowhere.json'], '/nowhere.json cannot be read'],
  ])('%j is refused with what is allowed', async (args, message) => {
    const failed = run(process.execPath, [program, ...args])
    await expect(failed).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining(message),
    })
  })
})
