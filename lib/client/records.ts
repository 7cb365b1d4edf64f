// Records: inputs and outputs of a fixed size that lie side by side in two pieces of registered memory.
// A call takes its input from there and leaves its result there, so it needs no view and no copy. And the
// addon, which knows where the next one is, sends it without being told.
import { invalidArgument, RfaasError } from '../errors.js'
import type { RecordOptions } from './call-options.js'
import {
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutputCapacity,
  iOutputOffset,
  iOutputRegion,
  rCount,
  rFunction,
  rInputBytes,
  rInputOffset,
  rInputRegion,
  rOutputBytes,
  rOutputOffset,
  rOutputRegion,
  rTimeout,
  runWords,
} from './call-record.js'
import type { NativeInvoker } from '../native.js'
import type { CallMemory, Place } from './memory.js'
import type { Request } from './waiting.js'

const nowhere: Place = { index: 0, offset: 0, length: 0 }

export class Records {
  /** How long the result of each is. */
  readonly lengths: Uint32Array<ArrayBuffer>
  /** What the addon knows of them; its first word counts those that have begun. */
  readonly run = new Uint32Array(new ArrayBuffer(4 * runWords))
  /** Of the run, from begin() to end(). */
  number = 0

  constructor(
    memory: CallMemory,
    inputs: Uint8Array,
    outputs: Uint8Array,
    { inputBytes, outputBytes }: RecordOptions,
  ) {
    const count = countRecords('input', inputs, inputBytes)
    if (countRecords('output', outputs, outputBytes) !== count) {
      const allowed = `${count} records of ${outputBytes} bytes, one for each input`
      throw wrongLength('outputs', outputs, allowed)
    }
    const from = placeOf(memory, 'inputs', inputs)
    const to = placeOf(memory, 'outputs', outputs)
    if (inputs.buffer === outputs.buffer && overlap(from, to)) {
      // A call that is sent again would find a result where its input was.
      throw new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', 'inputs and outputs overlap', {
        field: 'outputs',
      })
    }
    this.run[rCount] = count
    this.run[rInputRegion] = from.index
    this.run[rInputOffset] = from.offset
    this.run[rInputBytes] = inputBytes
    this.run[rOutputRegion] = to.index
    this.run[rOutputOffset] = to.offset
    this.run[rOutputBytes] = outputBytes
    // A buffer of its own, which stays where it is.
    this.lengths = new Uint32Array(new ArrayBuffer(4 * count))
  }

  begin(invoker: NativeInvoker, { index, timeoutUs }: Request): void {
    this.run[rFunction] = index
    this.run[rTimeout] = timeoutUs
    this.number = invoker.addRun(this.run.buffer, this.lengths.buffer)
  }

  end(invoker: NativeInvoker): void {
    invoker.removeRun(this.number)
    this.number = 0
  }

  /** Names input and output of record `index` in the request at `at`. */
  name(record: Uint32Array, at: number, index: number): void {
    const run = this.run
    const inputBytes = run[rInputBytes]!
    const outputBytes = run[rOutputBytes]!
    record[at + iInputRegion] = run[rInputRegion]!
    record[at + iInputOffset] = run[rInputOffset]! + index * inputBytes
    record[at + iInputLength] = inputBytes
    record[at + iOutputRegion] = run[rOutputRegion]!
    record[at + iOutputOffset] = run[rOutputOffset]! + index * outputBytes
    record[at + iOutputCapacity] = outputBytes
  }
}

function countRecords(kind: 'input' | 'output', bytes: Uint8Array, recordBytes: number): number {
  if (!(bytes instanceof Uint8Array)) throw invalidArgument(`${kind}s`, bytes, 'a Uint8Array')
  if (!Number.isInteger(recordBytes) || recordBytes < 1) {
    throw invalidArgument(`${kind}Bytes`, recordBytes, 'a whole number of at least 1')
  }
  if (bytes.byteLength % recordBytes !== 0) {
    throw wrongLength(`${kind}s`, bytes, `whole records of ${recordBytes} bytes`)
  }
  return bytes.byteLength / recordBytes
}

function placeOf(memory: CallMemory, field: string, bytes: Uint8Array): Place {
  if (bytes.byteLength === 0) return nowhere
  const place = memory.find(bytes)
  if (place === undefined) {
    throw new RfaasError(
      'ERR_RFAAS_INVALID_ARGUMENT',
      `${field} is not memory of these functions: take it from allocate(), or use map()`,
      { field },
    )
  }
  return place
}

function overlap(a: Place, b: Place): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length
}

function wrongLength(field: string, bytes: Uint8Array, allowed: string): RfaasError {
  return new RfaasError(
    'ERR_RFAAS_INVALID_ARGUMENT',
    `${field} has ${bytes.byteLength} bytes, must be ${allowed}`,
    { field, value: bytes.byteLength, allowed },
  )
}
