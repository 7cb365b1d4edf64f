// The benchmarks: npm run bench -- latency --json results.json
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Command, InvalidArgumentError, Option } from 'commander'

import { startLocalCluster } from '../lib/local-cluster.js'
import { formatBytes, parseBytes } from '../lib/units.js'
import { chooseCores, type Cores } from './cores.js'
import { DriverProcess } from './driver-process.js'
import { drivers, type DriverName } from './drivers/index.js'
import { describeMachine, root, type Machine } from './machine.js'
import { formatNs, formatRatio, formatTable, type Column } from './table.js'
import { trials, type TrialResult } from './trials.js'

interface Options {
  json?: string
  provider: 'shm' | 'verbs'
  drivers?: DriverName[]
  payloads?: number[]
  samples?: number
  rounds: number
  budget: number
  cores?: string
}

const columns: readonly Column<TrialResult>[] = [
  { title: 'payload', text: ({ payloadBytes }) => formatBytes(payloadBytes) },
  { title: 'driver', text: ({ driver }) => driver, align: 'left' },
  { title: 'samples', text: ({ samples }) => String(samples) },
  { title: 'min', text: ({ minNs }) => formatNs(minNs) },
  { title: 'p50', text: ({ p50Ns }) => formatNs(p50Ns) },
  { title: 'p99', text: ({ p99Ns }) => formatNs(p99Ns) },
  { title: 'p99.9', text: ({ p999Ns }) => formatNs(p999Ns) },
  { title: 'batch', text: ({ batchNs }) => (batchNs === undefined ? '' : formatNs(batchNs)) },
  // The floor beside this driver: the machine's pace may differ from driver to driver.
  { title: 'its floor', text: ({ floorP50Ns }) => formatNs(floorP50Ns) },
  { title: '× floor', text: ({ ratioToFloor }) => formatRatio(ratioToFloor) },
  {
    title: 'over the rounds',
    text: ({ ratioMin, ratioMax }) => `${formatRatio(ratioMin)} to ${formatRatio(ratioMax)}`,
  },
]

async function main(): Promise<void> {
  const { names, options } = parse()
  const cores = chooseCores(options.cores)
  const machine = describeMachine(options.provider, cores)
  await promisify(execFile)(process.execPath, [join(root, 'examples', 'build.mjs')])
  introduce(machine)
  // The managers live in this process, which rests while a driver measures.
  const cluster = await startLocalCluster({ cores: String(cores.worker), memory: '1GiB' })
  const results: TrialResult[] = []
  try {
    for (const name of names) {
      const rows = await runTrial(name, options, cores, cluster.url)
      results.push(...rows)
      console.log(`\n${name}: ${trials[name]!.description}\n\n${formatTable(columns, rows)}`)
    }
    if (options.json !== undefined) {
      await writeFile(options.json, JSON.stringify({ machine, trials: results }, null, 2) + '\n')
      console.log(`\nwritten to ${options.json}`)
    }
  } finally {
    await cluster.close()
  }
}

async function runTrial(
  name: string,
  options: Options,
  cores: Cores,
  url: string,
): Promise<TrialResult[]> {
  const trial = trials[name]!
  const payloads = options.payloads ?? trial.payloads
  const results: TrialResult[] = []
  for (const driver of options.drivers ?? trial.drivers) {
    console.error(`${name}: ${driver}: ${drivers[driver].description}`)
    const child = await DriverProcess.start(driver, cores, {
      url,
      provider: options.provider,
      workerCore: cores.worker,
      maxPayloadBytes: Math.max(...payloads),
    })
    try {
      const { provider, samples, rounds, budget } = options
      const context = { driver, provider, cores, payloads, samples, rounds, budgetMs: budget }
      results.push(...(await trial.run(child, context)))
    } finally {
      await child.close()
    }
  }
  return [...trial.shared(results), ...results].sort((a, b) => a.payloadBytes - b.payloadBytes)
}

function introduce(machine: Machine): void {
  const { cpu, cores, kernel, node, provider, device, clientCore, workerCore, clockNs } = machine
  console.log(`${cores} × ${cpu}, ${kernel}, Node ${node}, commit ${machine.commit}`)
  console.log(
    `${provider} on ${device}; client on core ${clientCore}, worker on core ${workerCore}`,
  )
  if (!machine.pinned) console.log('taskset(1) is missing: the client is not kept on its core')
  console.log(`round trips; reading the clock takes ${clockNs} ns of each sample`)
}

function parse(): { names: string[]; options: Options } {
  const command = new Command('bench')
    .description('Measures rfaas against the floor of its provider and against HTTP. Round trips.')
    .argument('[trials...]', `which: ${Object.keys(trials).join(', ')} (default: all)`)
    .option('--json <file>', 'write the results to this file')
    .addOption(new Option('--provider <name>').choices(['shm', 'verbs']).default('shm'))
    .option('--drivers <names>', `only these of ${Object.keys(drivers).join(',')}`, driverList)
    .option('--payloads <sizes>', 'for example 8,1KiB,64KiB', payloadList)
    .option('--samples <count>', 'per round and payload', count)
    .option('--rounds <count>', 'of the driver, each between two of the floor', count, 7)
    .option('--budget <ms>', 'a round of a slow driver ends after this', count, 1500)
    .option('--cores <client,worker>', 'default: the first two that may be used')
    .parse()
  const names = command.args.length > 0 ? command.args : Object.keys(trials)
  const unknown = names.find((name) => !Object.hasOwn(trials, name))
  if (unknown !== undefined) {
    command.error(`trial '${unknown}' is unknown: must be of ${Object.keys(trials).join(', ')}`)
  }
  return { names, options: command.opts<Options>() }
}

function driverList(text: string): DriverName[] {
  return text.split(',').map((name) => {
    if (!Object.hasOwn(drivers, name)) {
      throw new InvalidArgumentError(`'${name}' is none of ${Object.keys(drivers).join(', ')}`)
    }
    return name as DriverName
  })
}

function payloadList(text: string): number[] {
  return text.split(',').map((part) => {
    const bytes = parseBytes(part)
    if (bytes < 1 || bytes > 2 ** 30) throw new InvalidArgumentError('must be from 1 B to 1 GiB')
    return bytes
  })
}

function count(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 1e8) {
    throw new InvalidArgumentError('must be a whole number from 1 to 100000000')
  }
  return value
}

main().catch((error: unknown) => {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
})
