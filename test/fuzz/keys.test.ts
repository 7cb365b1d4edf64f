// API keys and the file that keeps their hashes: nothing but a key that was handed out opens the door.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { createLogger } from '../../lib/control/log.js'
import { createKey, keyIdOf, KeyRing, readKeysFile } from '../../lib/control/keys.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const folder = mkdtempSync(join(tmpdir(), 'rfaas-fuzz-keys-'))
const path = join(folder, 'keys.json')
const logger = createLogger({ name: 'fuzz', level: 'silent' })
const { key, record } = createKey({ role: 'tenant', tenant: 'alice' })
const { record: other } = createKey({ role: 'node', node: 'node-1' })
const text = JSON.stringify({ keys: [record, other] })

/** Whole or not at all, as `rfaas keys` writes it. */
function write(content: string | Uint8Array): void {
  writeFileSync(`${path}.partial`, content, { mode: 0o600 })
  renameSync(`${path}.partial`, path)
}

write(text)
afterAll(() => rmSync(folder, { recursive: true }))

describe('an API key', () => {
  it(
    'that was changed is refused, however little, and its secret is not repeated',
    () => {
      const ring = new KeyRing(path, logger)
      return fuzz({
        runs: 3000,
        inputs: [mutated(Buffer.from(key)).map((bytes) => bytes.toString('latin1'))],
        // The last character has two bits that no secret needs.
        regressions: [[key.slice(0, -1) + neighbour(key.at(-1)!)]],
        holds: async (given) => {
          const refused = await refusal(
            () => expect(ring.principalOf(given).tenant).toBe('alice'),
            'ERR_RFAAS_UNAUTHORIZED',
          )
          expect(refused === undefined).toBe(given === key)
          const secret = given.slice(`rfk_${keyIdOf(given) ?? ''}_`.length)
          if (refused !== undefined && secret.length > 8) {
            expect(refused.message).not.toContain(secret)
          }
        },
      })
    },
    patienceMs,
  )
})

describe('a keys file', () => {
  it(
    'of any content is read whole or refused, and the keys before it go on',
    () => {
      write(text)
      const ring = new KeyRing(path, logger)
      return fuzz({
        runs: 600,
        inputs: [
          fc.oneof(
            mutated(Buffer.from(text)),
            fc.json().map((json) => Buffer.from(json)),
          ),
        ],
        holds: async (content) => {
          write(content)
          const refused = await refusal(() => readKeysFile(path), 'ERR_RFAAS_INVALID_ARGUMENT')
          expect(refused?.message ?? path).toContain(path)
          if (refused === undefined) return
          // Whatever it was before it became unusable: never an error of another kind.
          await refusal(() => ring.principalOf(key), 'ERR_RFAAS_UNAUTHORIZED')
        },
      })
    },
    patienceMs,
  )

  it('that becomes unusable leaves the keys before it as they are', () => {
    write(text)
    const ring = new KeyRing(path, logger)
    write('{')
    expect(ring.principalOf(key)).toMatchObject({ tenant: 'alice', role: 'tenant' })
    write(JSON.stringify({ keys: [other] }))
    expect(() => ring.principalOf(key)).toThrow('there is no such key')
  })
})

/** The character that differs from `character` in the lowest of its six bits. */
function neighbour(character: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return alphabet[alphabet.indexOf(character) ^ 1]!
}
