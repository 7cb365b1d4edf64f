// Runs the failure matrix: provokes each fault for real and prints what was promised, what was seen and
// how long recovery took.
//
//     npm run test:faults [-- NAME... --cycles N --list --json --write-docs]
//
// A NAME is that of a scenario or its beginning. Exit code 0: every promise was kept.
import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { matrix } from './matrix.js'
import { compileNativePackage } from './packages.js'
import { descendants, end, naming } from './proc.js'
import type { Report } from './scenario-process.js'
import { lacking, type Scenario } from './scenario.js'
import { writeDocument } from './document.js'

const defaultWithinMs = 120_000

interface Row {
  name: string
  fault: string
  promised: string
  seen: string
  recoveredMs: number | null
  /** `late`: the outcome was as promised, the recovery took longer. */
  verdict: 'pass' | 'late' | 'fail' | 'skip'
  /** Of the whole scenario. */
  tookMs: number
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // Other programs share the machine: what is late is told and does not count.
    busy: { type: 'boolean', default: false },
    cycles: { type: 'string' },
    json: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    'write-docs': { type: 'boolean', default: false },
  },
})

process.exitCode = await main()

async function main(): Promise<number> {
  if (values['write-docs']) {
    writeDocument()
    return 0
  }
  const chosen = choose(positionals)
  if (values.list) {
    for (const { name, fault } of chosen) console.log(`${name.padEnd(34)} ${fault}`)
    return 0
  }
  compileNativePackage()
  const rows: Row[] = []
  for (const [index, scenario] of chosen.entries()) {
    if (!values.json) console.log(`\n[${index + 1}/${chosen.length}] ${scenario.name}`)
    const row = await runScenario(scenario)
    rows.push(row)
    if (!values.json) print(row)
  }
  const count = (verdict: Row['verdict']): number =>
    rows.filter((row) => row.verdict === verdict).length
  if (values.json) console.log(JSON.stringify(rows, undefined, 2))
  else {
    // Once more, where the end of a long log is looked at.
    for (const row of rows.filter(({ verdict }) => verdict === 'fail' || verdict === 'late')) {
      console.log(`\nnot kept: ${row.name}`)
      print(row)
    }
    const told = `${count('pass')} kept, ${count('late')} late, ${count('fail')} broken`
    console.log(`\n${told}, ${count('skip')} skipped`)
  }
  return count('fail') + (values.busy ? 0 : count('late')) === 0 ? 0 : 1
}

function choose(names: readonly string[]): Scenario[] {
  const all = matrix.flatMap(({ scenarios }) => scenarios)
  if (names.length === 0) return all
  for (const name of names) {
    if (all.some((scenario) => scenario.name.startsWith(name))) continue
    throw new Error(`there is no scenario ${name}: --list shows them`)
  }
  return all.filter((scenario) => names.some((name) => scenario.name.startsWith(name)))
}

async function runScenario(scenario: Scenario): Promise<Row> {
  const { name, fault, promise, recoversWithinMs } = scenario
  const row = { name, fault, promised: promise, recoveredMs: null, tookMs: 0 }
  const why = lacking(scenario)
  if (why !== undefined) return { ...row, seen: why, verdict: 'skip' }
  const began = performance.now()
  const report = await play(scenario)
  row.tookMs = Math.round(performance.now() - began)
  if ('failed' in report) return { ...row, seen: report.failed, verdict: 'fail' }
  const { seen, recoveredMs } = report.seen
  const late =
    recoversWithinMs !== undefined && recoveredMs !== undefined && recoveredMs > recoversWithinMs
  return {
    ...row,
    seen: late ? `${seen}; too late: promised within ${recoversWithinMs} ms` : seen,
    recoveredMs: recoveredMs === undefined ? null : Math.round(recoveredMs),
    verdict: late ? 'late' : 'pass',
  }
}

/** The scenario's process, all that it started and its folder are gone when this resolves. */
async function play({ name, unshare, withinMs = defaultWithinMs }: Scenario): Promise<Report> {
  const { NODE_EXTRA_CA_CERTS: _slow, ...inherited } = process.env
  const { cycles } = values
  const env = { ...inherited, ...(cycles !== undefined && { RFAAS_FAULTS_CYCLES: cycles }) }
  const script = join(import.meta.dirname, 'scenario-process.js')
  const folder = mkdtempSync(join(tmpdir(), 'rfaas-fault-'))
  // Workers of another user look for their package below.
  chmodSync(folder, 0o755)
  const inside = unshare === undefined ? [] : ['unshare', `--${unshare}`, '--']
  const [command, ...args] = [...inside, process.execPath, script, name, folder] as const
  const child = spawn(command, args, { env, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  let timer: NodeJS.Timeout | undefined
  const report = await new Promise<Report>((resolve) => {
    timer = setTimeout(() => resolve({ failed: `not over within ${withinMs} ms` }), withinMs)
    child.once('message', (message: Report) => resolve(message))
    child.once('exit', (code, by) => resolve({ failed: `its process ended with ${code ?? by}` }))
  })
  clearTimeout(timer)
  const pid = child.pid ?? 0
  // Jobs of a batch system are nobody's children: they find their way by a file in the folder.
  await end([...descendants(pid), pid, ...naming(`=${folder}/`)])
  rmSync(folder, { recursive: true, force: true })
  return report
}

function print(row: Row): void {
  const { fault, promised, seen, recoveredMs, verdict, tookMs } = row
  console.log(`  fault     ${fault}`)
  console.log(`  promised  ${promised}`)
  console.log(`  seen      ${seen.replaceAll('\n', '\n            ')}`)
  if (recoveredMs !== null) console.log(`  recovery  ${recoveredMs} ms`)
  const colour = process.stdout.isTTY
    ? { pass: 32, late: 33, fail: 31, skip: 33 }[verdict]
    : undefined
  const text = `${verdict} (${(tookMs / 1000).toFixed(1)} s)`
  console.log(`  ${colour === undefined ? text : `\u001b[${colour}m${text}\u001b[0m`}`)
}
