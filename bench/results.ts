// What a run leaves behind: one result per trial, driver, metric and point, in one file with the
// machine that it is of.
import { readFile } from 'node:fs/promises'

import type { Machine } from './machine.js'
import { combine, spreadOf, type Distribution, type Spread } from './statistics.js'

export type Unit = 'ns' | '1/s' | 'B/s' | 'B' | '%'

/** What was measured, without its values. */
export interface Point {
  trial: string
  driver: string
  metric: string
  unit: Unit
  better: 'lower' | 'higher'
  /** Payload, depth, workers, …: what the trial varies. */
  params: Readonly<Record<string, number | string>>
}

export interface Ratio extends Spread {
  /** The floor that was measured before and after each round. */
  to: string
}

/** One value per round; of times, a round's value is its median. */
export interface Result extends Point, Spread {
  distribution?: Distribution
  ratios: Ratio[]
}

/** What could not be measured here, and why. */
export interface Skipped {
  trial: string
  driver: string
  reason: string
}

export interface ResultFile {
  machine: Machine
  results: Result[]
  skipped: Skipped[]
}

/** One round's measurement. */
export interface Measured {
  value: number
  distribution?: Distribution
  /** This round's value divided by that of the floor beside it, by the floor's name. */
  ratios?: Readonly<Record<string, number>>
}

/** Collects rounds, and makes one result of those that belong together. */
export class Recorder {
  readonly #points = new Map<string, { point: Point; rounds: Measured[] }>()
  readonly skipped: Skipped[] = []

  add(point: Point, measured: Measured): void {
    const key = keyOf(point)
    const known = this.#points.get(key)
    if (known === undefined) this.#points.set(key, { point, rounds: [measured] })
    else known.rounds.push(measured)
  }

  skip(trial: string, driver: string, reason: string): void {
    const known = this.skipped.some((one) => one.trial === trial && one.driver === driver)
    if (!known) this.skipped.push({ trial, driver, reason })
  }

  /** In the order in which the points were first seen. */
  results(): Result[] {
    return [...this.#points.values()].map(({ point, rounds }) => {
      const distributions = rounds.flatMap(({ distribution }) => distribution ?? [])
      const floors = Object.keys(rounds[0]?.ratios ?? {})
      return {
        ...point,
        ...spreadOf(rounds.map(({ value }) => value)),
        ...(distributions.length === 0 ? {} : { distribution: combine(distributions) }),
        ratios: floors.map((to) => ({
          to,
          ...spreadOf(rounds.flatMap(({ ratios }) => ratios?.[to] ?? [])),
        })),
      }
    })
  }
}

/** The same for the same point of two runs. */
export function keyOf({ trial, driver, metric, params }: Omit<Point, 'unit' | 'better'>): string {
  const pairs = Object.entries(params)
    .map(([name, value]) => `${name}=${value}`)
    .sort()
  return [trial, driver, metric, ...pairs].join(' ')
}

/** The result of that point, if it was measured. Parameters that are not named may be anything. */
export function findResult(
  results: readonly Result[],
  wanted: { trial: string; driver: string; metric?: string; params?: Result['params'] },
): Result | undefined {
  return results.find(
    (result) =>
      result.trial === wanted.trial &&
      result.driver === wanted.driver &&
      (wanted.metric === undefined || result.metric === wanted.metric) &&
      Object.entries(wanted.params ?? {}).every(([name, value]) => result.params[name] === value),
  )
}

/** `a` divided by `b`, round by round: rounds of the same number were measured one after the other. */
export function quotient(a: Spread, b: Spread): Spread {
  const count = Math.min(a.rounds.length, b.rounds.length)
  return spreadOf(a.rounds.slice(0, count).map((value, i) => value / b.rounds[i]!))
}

export async function readResults(file: string): Promise<ResultFile> {
  let parsed: unknown
  try {
    parsed = JSON.parse(await readFile(file, 'utf8'))
  } catch (error) {
    throw new Error(`${file} cannot be read: ${String(error)}`, { cause: error })
  }
  const { machine, results, skipped } = parsed as Partial<ResultFile>
  if (machine === undefined || !Array.isArray(results) || !Array.isArray(skipped)) {
    throw new Error(`${file} is no result of this program: it was written with bench --json`)
  }
  return { machine, results, skipped }
}
