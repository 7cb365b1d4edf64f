// What a trial is, and what all trials do.
import { setTimeout as sleep } from 'node:timers/promises'

import type { Cores } from '../cores.js'
import type { OpenOptions } from '../drivers/driver.js'
import { drivers, type DriverName } from '../drivers/index.js'
import type { FunctionName } from '../functions/functions.js'
import type { Machine } from '../machine.js'
import type { Recorder } from '../results.js'

export interface RunOptions {
  provider: 'shm' | 'verbs'
  /** Only these; undefined: all that the trial has. */
  drivers: readonly DriverName[] | undefined
  /** Undefined: as the trial thinks right. */
  payloads: readonly number[] | undefined
  /** Per round and point; undefined: as the trial thinks right. */
  samples: number | undefined
  rounds: number
  /** Of one measurement of something slow. */
  budgetMs: number
}

export interface Context extends RunOptions {
  cores: Cores
  machine: Machine
  recorder: Recorder
  /** For who waits. */
  say(text: string): void
}

export interface Trial {
  description: string
  /** Those that take part, unless --drivers says less. */
  drivers: readonly DriverName[]
  run(context: Context, drivers: readonly DriverName[]): Promise<void>
}

export const KiB = 1024
export const MiB = KiB * KiB

/** Options in `price`'s input: some microseconds of work. */
export const optionsPerCall = 64
export const pricePayloadBytes = 8 + optionsPerCall * 48

export function openOptions(
  { provider, cores }: Context,
  url: string,
  options: Partial<OpenOptions> & { function: FunctionName },
): OpenOptions {
  return {
    url,
    provider,
    workerCores: cores.workers.slice(0, 1),
    maxPayloadBytes: 64,
    depth: 1,
    ...options,
  }
}

/** Every round goes through all drivers, each in a fresh process: what differs from start to start of
 * a process, and what changes on the machine meanwhile, is in the spread of the rounds. */
export async function eachRound(
  context: Context,
  trial: string,
  names: readonly DriverName[],
  measure: (driver: DriverName) => Promise<void>,
): Promise<void> {
  for (let round = 1; round <= context.rounds; ++round) {
    for (const driver of names) {
      context.say(`${trial}: round ${round} of ${context.rounds}: ${driver}`)
      await measure(driver)
    }
  }
}

// Longer than a worker spins after a call: what follows has the cores for itself.
const settleMs = 25

export const settle = (): Promise<void> => sleep(settleMs)

/** Between two measurements of a floor; the mean of both is what the one in between is divided by. */
export async function beside<T>(
  floor: () => Promise<number>,
  measure: () => Promise<T>,
): Promise<{ measured: T; floor: number }> {
  await settle()
  const before = await floor()
  const measured = await measure()
  await settle()
  return { measured, floor: (before + (await floor())) / 2 }
}

export function isRfaas(driver: DriverName): boolean {
  return drivers[driver].kind === 'rfaas'
}

/** Large calls are slow: fewer of them. */
export function samplesFor(context: Context, payloadBytes: number): number {
  if (context.samples !== undefined) return context.samples
  if (payloadBytes <= 4 * KiB) return 20_000
  if (payloadBytes <= 64 * KiB) return 5_000
  return payloadBytes <= MiB ? 500 : 20
}
