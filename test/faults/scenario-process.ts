// One scenario in a process of its own, so that whatever becomes of it, the next begins afresh and the
// runner does not hang. Started by run.ts with the scenario's name and a folder; answers over IPC.
import { matrix } from './matrix.js'
import type { Seen } from './scenario.js'
import { Stage } from './stage.js'

export type Report = { seen: Seen } | { failed: string }

const [name, folder = ''] = process.argv.slice(2)
const scenario = matrix.flatMap(({ scenarios }) => scenarios).find((one) => one.name === name)
if (scenario === undefined) throw new Error(`there is no scenario ${name}`)

const stage = new Stage(folder)
let report: Report
try {
  const seen = await scenario.run(stage)
  await stage.examine()
  report = { seen }
} catch (error) {
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error)
  report = { failed: [what, ...stage.complaints].join('\n') }
}
process.send?.(report, () => process.exit())
