// What a driver is: one way to have a payload echoed, opened in a process of its own.
import { randomFillSync } from 'node:crypto'

import type { Operation } from '../timing.js'

export interface DriverOptions {
  /** Of the resource manager. */
  url: string
  provider: 'shm' | 'verbs'
  /** Where the other side of the call runs. */
  workerCore: number
  maxPayloadBytes: number
}

/** An echo that can be measured. */
export interface Session {
  readonly operation: Operation
  /** From now on an operation sends `input`. */
  use(input: Uint8Array): void
  /** What the last operation brought back. */
  result(): Uint8Array
  close(): Promise<void>
}

export interface Driver {
  readonly description: string
  open(options: DriverOptions): Promise<Session>
}

export function randomPayload(bytes: number): Uint8Array {
  return randomFillSync(new Uint8Array(bytes))
}
