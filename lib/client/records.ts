// Records: inputs and outputs of a fixed size that lie side by side in two pieces of registered memory.
// A call takes its input from there and leaves its result there, so it needs no view and no copy.
import { invalidArgument, RfaasError } from '../errors.js'
import type { RecordOptions } from './call-options.js'
import {
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutputCapacity,
  iOutputOffset,
  iOutputRegion,
} from './call-record.js'
import type { CallMemory, Place } from './memory.js'

const nowhere: Place = { index: 0, offset: 0, length: 0 }

export class Records {
  /** How long the result of each is. */
  readonly lengths: Uint32Array
  readonly #inputs: Place
  readonly #outputs: Place
  readonly #inputBytes: number
  readonly #outputBytes: number

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
    this.#inputs = placeOf(memory, 'inputs', inputs)
    this.#outputs = placeOf(memory, 'outputs', outputs)
    if (inputs.buffer === outputs.buffer && overlap(this.#inputs, this.#outputs)) {
      // A call that is sent again would find a result where its input was.
      throw new RfaasError('ERR_RFAAS_INVALID_ARGUMENT', 'inputs and outputs overlap', {
        field: 'outputs',
      })
    }
    this.#inputBytes = inputBytes
    this.#outputBytes = outputBytes
    this.lengths = new Uint32Array(count)
  }

  /** Names input and output of record `index` in the request at `at`. */
  name(record: Uint32Array, at: number, index: number): void {
    const inputs = this.#inputs
    const outputs = this.#outputs
    record[at + iInputRegion] = inputs.index
    record[at + iInputOffset] = inputs.offset + index * this.#inputBytes
    record[at + iInputLength] = this.#inputBytes
    record[at + iOutputRegion] = outputs.index
    record[at + iOutputOffset] = outputs.offset + index * this.#outputBytes
    record[at + iOutputCapacity] = this.#outputBytes
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
