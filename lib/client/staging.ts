// Registered memory for the inputs and outputs of one worker's slots, for bytes that are not
// registered themselves: they are copied here.
import type { CallMemory } from './memory.js'
import {
  iInputLength,
  iInputOffset,
  iInputRegion,
  iOutputCapacity,
  iOutputOffset,
  iOutputRegion,
} from './call-record.js'

const alignment = 64
// What a loop copies in less time than a method takes to begin.
const shortBytes = 16
const round = (bytes: number): number => Math.ceil(bytes / alignment) * alignment

export class Staging {
  readonly #memory: CallMemory
  readonly #slots: number
  readonly #inputStride: number
  readonly #stride: number
  #region: { index: number; bytes: Uint8Array } | undefined

  constructor(memory: CallMemory, slots: number, payloadBytes: number, outputBytes: number) {
    this.#memory = memory
    this.#slots = slots
    this.#inputStride = round(payloadBytes)
    this.#stride = this.#inputStride + round(outputBytes)
  }

  /** Copies `input`, which fits, to the slot's place and names that place in the request at `at`. */
  putInput(record: Uint32Array, at: number, slot: number, input: Uint8Array): void {
    const { index, bytes } = this.#get()
    const offset = slot * this.#stride
    bytes.set(input, offset)
    record[at + iInputRegion] = index
    record[at + iInputOffset] = offset
    record[at + iInputLength] = input.byteLength
  }

  /** Names the slot's place for a result in the request at `at`. */
  nameOutput(record: Uint32Array, at: number, slot: number, capacity: number): void {
    record[at + iOutputRegion] = this.#get().index
    record[at + iOutputOffset] = slot * this.#stride + this.#inputStride
    record[at + iOutputCapacity] = capacity
  }

  /** The slot's result, until its next call. */
  output(slot: number, length: number): Uint8Array {
    const begin = slot * this.#stride + this.#inputStride
    return this.#get().bytes.subarray(begin, begin + length)
  }

  /** A copy of it. */
  takeOutput(slot: number, length: number): Uint8Array {
    const { bytes } = this.#get()
    const begin = slot * this.#stride + this.#inputStride
    if (length > shortBytes) return bytes.slice(begin, begin + length)
    const copy = new Uint8Array(length)
    for (let i = 0; i < length; ++i) copy[i] = bytes[begin + i]!
    return copy
  }

  /** Made by the first call that needs it: a program may use registered memory only. */
  #get(): { index: number; bytes: Uint8Array } {
    if (this.#region === undefined) {
      const { index, buffer } = this.#memory.region(this.#stride * this.#slots)
      this.#region = { index, bytes: new Uint8Array(buffer) }
    }
    return this.#region
  }
}
