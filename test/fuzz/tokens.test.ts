// Lease tokens: nothing but what the resource manager signed is a token.
import { generateKeyPairSync, sign } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LeaseClaims } from '../../lib/control/schemas.js'
import { inspect } from '../../lib/control/check.js'
import { signToken, verifyToken } from '../../lib/control/token.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const nowMs = Date.UTC(2030, 0, 1)
const here = { node: 'node-a', nowMs }
const claims: LeaseClaims = {
  lease: 'l-1',
  tenant: 'default',
  node: 'node-a',
  cores: [2, 3],
  memoryBytes: 2 ** 30,
  epoch: 7,
  expiresAtMs: nowMs + 1000,
}
const token = signToken(claims, privateKey)

describe('a lease token', () => {
  it(
    'that was changed is refused, however little',
    () =>
      fuzz({
        runs: 3000,
        inputs: [mutated(Buffer.from(token)).map((bytes) => bytes.toString('latin1'))],
        // The last character has four bits that no signature needs.
        regressions: [[`${token.slice(0, -1)}${neighbour(token.at(-1)!)}`]],
        holds: async (text) => {
          const refused = await refusal(
            () => expect(verifyToken(text, publicKey, here)).toEqual(claims),
            'ERR_RFAAS_UNAUTHORIZED',
          )
          expect(refused === undefined).toBe(text === token)
        },
      }),
    patienceMs,
  )

  it(
    'is refused when it was signed and says what no token says',
    () =>
      fuzz({
        runs: 1000,
        inputs: [
          fc.oneof(
            mutated(Buffer.from(JSON.stringify(claims))),
            fc.json().map((text) => Buffer.from(text)),
          ),
        ],
        holds: async (bytes) => {
          const payload = bytes.toString('base64url')
          const signature = sign(null, Buffer.from(payload), privateKey).toString('base64url')
          const signed = `${payload}.${signature}`
          await refusal(() => {
            expect(inspect(LeaseClaims, verifyToken(signed, publicKey, here))).toBeUndefined()
          }, 'ERR_RFAAS_UNAUTHORIZED')
        },
      }),
    patienceMs,
  )
})

/** The character that differs from `character` in the lowest of its six bits. */
function neighbour(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet[alphabet.indexOf(character) ^ 1]!
}
