// A record as text: a checksum over its key and value, a blank, the value as JSON. And the sum over all
// records of a store, so that one that is missing or older than the others does not go unnoticed.
import { crc32 } from 'node:zlib'
import { Type, type Static } from 'typebox'

export const formatVersion = 3

export const keys = {
  version: 'meta/version',
  epoch: 'meta/epoch',
  clock: 'meta/clock',
  sum: 'meta/sum',
}

const checksumDigits = 8

/** Of all records but this one: how many they are, and their checksums added up modulo 2^32. And of
 * which transaction that is: pages that are older than the rest of the file may agree with each other. */
export const RecordSum = Type.Object({
  count: Type.Integer({ minimum: 0 }),
  checksums: Type.Integer({ minimum: 0 }),
  transaction: Type.Optional(Type.Integer({ minimum: 0 })),
})
export type RecordSum = Static<typeof RecordSum>

export const emptySum = { count: 0, checksums: 0 }

export function encodeRecord(key: string, value: unknown): string {
  const json = JSON.stringify(value)
  return `${checksumOf(key, json)} ${json}`
}

/** The value; undefined: these are not the bytes that were stored under the key. */
export function decodeRecord(key: string, text: string): unknown {
  const json = text.slice(checksumDigits + 1)
  if (text !== `${checksumOf(key, json)} ${json}`) return undefined
  return JSON.parse(json)
}

/** The sum when `before` gives way to `after` (records as text; undefined: there is none). */
export function replaceInSum(
  { count, checksums }: RecordSum,
  before: string | undefined,
  after: string | undefined,
): Pick<RecordSum, 'count' | 'checksums'> {
  const weight = (text: string | undefined): number =>
    text === undefined ? 0 : Number.parseInt(text.slice(0, checksumDigits), 16)
  return {
    count: count + Number(after !== undefined) - Number(before !== undefined),
    checksums: (checksums + weight(after) - weight(before)) >>> 0,
  }
}

/** The format of a store, from its record: those before 3 had no checksum. Undefined: damaged. */
export function decodeVersion(text: string): number | undefined {
  const value = /^\d{1,4}$/.test(text) ? Number(text) : decodeRecord(keys.version, text)
  return typeof value === 'number' ? value : undefined
}

function checksumOf(key: string, json: string): string {
  const checksum = crc32(json, crc32(`${key} `))
  return checksum.toString(16).padStart(checksumDigits, '0')
}
