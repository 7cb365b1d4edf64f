// One run: its trials one after the other, into one file of results.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

import { chooseCores } from './cores.js'
import { describeMachine, root, type Machine } from './machine.js'
import { Recorder, type ResultFile } from './results.js'
import { trials } from './trials/index.js'
import type { RunOptions } from './trials/trial.js'

/** Nothing else should run on the machine meanwhile. */
export async function measure(
  names: readonly string[],
  options: RunOptions,
  wantedCores: string | undefined,
  introduce: (machine: Machine) => void,
  say: (text: string) => void,
): Promise<ResultFile> {
  const cores = chooseCores(wantedCores)
  const machine = describeMachine(options.provider, cores)
  introduce(machine)
  await promisify(execFile)(process.execPath, [join(root, 'examples', 'build.mjs')])
  const recorder = new Recorder()
  for (const name of names) {
    const trial = trials[name]!
    say(`${name}: ${trial.description}`)
    const { drivers: wanted } = options
    const drivers =
      wanted === undefined ? trial.drivers : trial.drivers.filter((one) => wanted.includes(one))
    await trial.run({ ...options, cores, machine, recorder, say }, drivers)
  }
  return { machine, results: recorder.results(), skipped: recorder.skipped }
}
