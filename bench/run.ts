// The benchmarks: npm run bench -- [TRIAL…] --json FILE --html FILE
import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'

import { parseBytes } from '../lib/units.js'
import { compareFiles } from './compare.js'
import { drivers, type DriverName } from './drivers/index.js'
import { describe } from './machine.js'
import { measure } from './measure.js'
import { renderPage } from './report/page.js'
import { readResults, type ResultFile } from './results.js'
import { formatResults } from './table.js'
import { evaluateTargets, formatTargets, targetTrials } from './targets.js'
import { trials } from './trials/index.js'
import type { RunOptions } from './trials/trial.js'

interface Options extends Partial<RunOptions> {
  provider: 'shm' | 'verbs'
  rounds: number
  budget: number
  cores?: string
  json?: string
  html?: string
}

const program = new Command('bench')
  .description('Measures rfaas against the floor of its provider and against its peers.')
  .argument('[trials...]', `which: ${Object.keys(trials).join(', ')} (default: all)`, trialNames)
  .option('--json <file>', 'write the results to this file')
  .option('--html <file>', 'write the report to this file')
  .addOption(new Option('--provider <name>').choices(['shm', 'verbs']).default('shm'))
  .option('--drivers <names>', `only these of ${Object.keys(drivers).join(',')}`, driverList)
  .option('--payloads <sizes>', 'for example 8,1KiB,64KiB', payloadList)
  .option('--samples <count>', 'per round and point; default: what the trial thinks right', count)
  .option('--rounds <count>', 'each with a new process per driver', count, 5)
  .option('--budget <ms>', 'a measurement of something slow ends after this', count, 500)
  .option('--cores <client,worker,…>', 'as in 0,2-5; default: all that may be used')
  .action(async (names: string[], options: Options) => {
    const file = await run(names.length > 0 ? names : Object.keys(trials), options)
    console.log(formatResults(file.results))
    for (const { trial, driver, reason } of file.skipped) {
      console.log(`${trial}: ${driver} was not measured: ${reason}`)
    }
  })

program
  .command('compare')
  .description('Says what changed from A to B beyond noise; exit code 1 if something got worse.')
  .argument('<A.json>')
  .argument('<B.json>')
  .option('--force', 'although they are of different machines')
  .action(async (a: string, b: string, { force = false }: { force?: boolean }) => {
    const { text, worse } = compareFiles(await readResults(a), await readResults(b), { force })
    console.log(text)
    if (worse > 0) process.exitCode = 1
  })

program
  .command('targets')
  .description('Says which targets are met, from result files or from a new run of their trials.')
  .argument('[files...]', 'written by --json; later ones win')
  .action(async (files: string[]) => {
    const measured =
      files.length > 0
        ? await Promise.all(files.map(readResults))
        : [await run(targetTrials, program.opts<Options>())]
    console.log(formatTargets(evaluateTargets(measured)))
  })

program
  .command('report')
  .description('Makes the report of a result file.')
  .argument('<file.json>')
  .argument('<file.html>')
  .action(async (from: string, to: string) => {
    await writeFile(to, renderPage(await readResults(from)))
    console.log(`written to ${to}`)
  })

async function run(names: readonly string[], options: Options): Promise<ResultFile> {
  const file = await measure(
    names,
    {
      provider: options.provider,
      drivers: options.drivers,
      payloads: options.payloads,
      samples: options.samples,
      rounds: options.rounds,
      budgetMs: options.budget,
    },
    options.cores,
    (machine) => console.log(describe(machine).join('\n')),
    (text) => console.error(text),
  )
  if (options.json !== undefined) {
    await writeFile(options.json, JSON.stringify(file, null, 1) + '\n')
    console.log(`written to ${options.json}`)
  }
  if (options.html !== undefined) {
    await writeFile(options.html, renderPage(file))
    console.log(`written to ${options.html}`)
  }
  return file
}

function trialNames(name: string, before: string[] = []): string[] {
  if (!Object.hasOwn(trials, name)) {
    throw new InvalidArgumentError(
      `trial '${name}' is unknown: must be of ${Object.keys(trials).join(', ')}`,
    )
  }
  return [...before, name]
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

program.parseAsync().catch((error: unknown) => {
  console.error(`bench: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
})
