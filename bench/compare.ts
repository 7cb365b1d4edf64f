// What changed between two runs, and what is only noise.
//
// Every result has one value per round, each from a process of its own. A change counts when the
// rounds of A and those of B do not overlap at all (by chance that happens to five against five
// rounds in one of 126 cases) and the medians differ by more than `leastChange`. Results that were
// measured beside a floor are compared by their ratio to it: the machine's own pace is no change of
// ours.
import { labelOf, kindOf } from './drivers/names.js'
import { comparable, describe } from './machine.js'
import { keyOf, type Result, type ResultFile } from './results.js'
import type { Spread } from './statistics.js'
import { formatParams, formatRatio, formatTable, formatValue, type Column } from './table.js'

const leastChange = 0.03
const leastRounds = 3

export interface Comparison {
  text: string
  /** How many of ours got worse. */
  worse: number
}

type Verdict = 'better' | 'worse' | 'same' | 'unknown'

interface Change {
  result: Result
  /** To which floor; undefined: the value itself. */
  to: string | undefined
  a: Spread
  b: Spread
  verdict: Verdict
}

/** Throws when the machines differ and `force` is not set. */
export function compareFiles(
  a: ResultFile,
  b: ResultFile,
  { force = false }: { force?: boolean } = {},
): Comparison {
  const [before, after] = [comparable(a.machine), comparable(b.machine)]
  const different = Object.keys(before).filter((name) => before[name] !== after[name])
  if (different.length > 0 && !force) {
    const list = different.map((name) => `${name}: ${before[name]} / ${after[name]}`).join('; ')
    throw new Error(`the runs are of different machines (${list}); --force compares them anyway`)
  }
  const changes = pairs(a.results, b.results).map(([one, other]) => changeOf(one, other))
  const ours = changes.filter(({ result }) => kindOf(result.driver) === 'rfaas')
  const others = changes.filter(({ result }) => kindOf(result.driver) !== 'rfaas')
  const count = (list: readonly Change[], verdict: Verdict): number =>
    list.filter((change) => change.verdict === verdict).length
  const changed = (list: readonly Change[]): Change[] =>
    list.filter(({ verdict }) => verdict === 'worse' || verdict === 'better')
  const worse = count(ours, 'worse')
  const lines = [`A: ${describe(a.machine)[0]}`, `B: ${describe(b.machine)[0]}`, '']
  if (changed(ours).length > 0) lines.push(formatTable(columns, changed(ours)), '')
  lines.push(
    `rfaas: ${worse} worse, ${count(ours, 'better')} better, ${count(ours, 'same')} not beyond noise`,
  )
  const unknown = count(ours, 'unknown')
  if (unknown > 0) {
    lines.push(`${unknown} have fewer than ${leastRounds} rounds: too few to tell noise`)
  }
  const only = a.results.length + b.results.length - 2 * changes.length
  if (only > 0) lines.push(`${only} results are in one of the files only`)
  if (changed(others).length > 0) {
    lines.push('', 'Floors and peers that changed (not ours):', '')
    lines.push(formatTable(columns, changed(others)))
  }
  return { text: lines.join('\n'), worse }
}

const columns: readonly Column<Change>[] = [
  { title: '', text: ({ verdict }) => verdict, align: 'left' },
  { title: 'trial', text: ({ result }) => result.trial, align: 'left' },
  { title: 'driver', text: ({ result }) => labelOf(result.driver), align: 'left' },
  { title: 'point', text: ({ result }) => formatParams(result.params), align: 'left' },
  { title: 'metric', text: metric, align: 'left' },
  { title: 'A', text: (change) => spread(change, change.a) },
  { title: 'B', text: (change) => spread(change, change.b) },
  { title: 'change', text: ({ a, b }) => percent(b.median / a.median - 1) },
]

function pairs(a: readonly Result[], b: readonly Result[]): [Result, Result][] {
  const byKey = new Map(b.map((result) => [keyOf(result), result]))
  return a.flatMap((result): [Result, Result][] => {
    const other = byKey.get(keyOf(result))
    return other === undefined ? [] : [[result, other]]
  })
}

function changeOf(a: Result, b: Result): Change {
  const ratio = a.ratios.at(-1)
  const other = b.ratios.find(({ to }) => to === ratio?.to)
  const both = ratio !== undefined && other !== undefined
  const spreads = both ? { a: ratio, b: other } : { a, b }
  return {
    result: b,
    to: both ? ratio.to : undefined,
    ...spreads,
    verdict: judge(spreads, b.better),
  }
}

function judge({ a, b }: { a: Spread; b: Spread }, better: 'lower' | 'higher'): Verdict {
  if (a.rounds.length < leastRounds || b.rounds.length < leastRounds) return 'unknown'
  const change = b.median / a.median - 1
  if (!(Math.abs(change) > leastChange)) return 'same'
  if (a.min <= b.max && b.min <= a.max) return 'same'
  return change > 0 === (better === 'higher') ? 'better' : 'worse'
}

function metric({ result, to }: Change): string {
  return to === undefined ? result.metric : `${result.metric} / ${labelOf(to)}`
}

function spread({ result, to }: Change, { median, min, max }: Spread): string {
  const text = (value: number): string =>
    to === undefined ? formatValue(value, result.unit) : formatRatio(value)
  return `${text(median)} (${text(min)} to ${text(max)})`
}

function percent(change: number): string {
  return `${change > 0 ? '+' : ''}${(100 * change).toFixed(1)} %`
}
