// Texts that people and files give: sizes, durations, configuration files; and the checker of
// messages, for every schema that there is.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import type { TSchema } from 'typebox'
import { afterAll, describe, expect, it } from 'vitest'
import { inspect } from '../../lib/control/check.js'
import { withConfig } from '../../lib/control/command.js'
import * as messages from '../../lib/control/schemas.js'
import { formatBytes, formatDuration, parseBytes, parseDuration } from '../../lib/units.js'
import { fromSchema, type Schema } from './from-schema.js'
import { fuzz, mutated, patienceMs, refusal } from './fuzz.js'

const folder = mkdtempSync(join(tmpdir(), 'rfaas-fuzz-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const quantities = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.tuple(fc.double({ min: 0 }), fc.constantFrom('', 'B', 'KiB', 'GB', 'ms', 'h')).map(String),
  fc.stringMatching(/^[0-9.]{1,12} ?(k|M|g)?i?[bB]?$/),
  fc.stringMatching(/^([0-9.]{1,6}(ms|s|m|h|d)){1,3}$/),
)

describe('text', () => {
  it(
    'of a size or a duration is a whole number or refused',
    () =>
      fuzz({
        runs: 3000,
        inputs: [quantities],
        holds: async (text) => {
          for (const parse of [parseBytes, parseDuration]) {
            await refusal(() => {
              const value = parse(text)
              expect(Number.isSafeInteger(value) && value >= 0).toBe(true)
            }, 'ERR_RFAAS_INVALID_ARGUMENT')
          }
        },
      }),
    patienceMs,
  )

  it(
    'that shows a size or a duration is read as about the same',
    () =>
      fuzz({
        runs: 3000,
        inputs: [fc.bigInt({ min: 0n, max: 2n ** 50n }).map(Number)],
        holds: (amount) => {
          const bytes = parseBytes(formatBytes(amount))
          expect(Math.abs(bytes - amount)).toBeLessThanOrEqual(Math.max(1, amount * 0.051))
          // Shown to the second from a minute on, and to the day at the longest.
          const duration = Math.min(amount, 2 ** 45)
          const again = parseDuration(formatDuration(duration))
          expect(Math.abs(again - duration)).toBeLessThanOrEqual(duration < 60_000 ? 0 : 500)
        },
      }),
    patienceMs,
  )

  it(
    'of a configuration file is a set of known options or refused',
    () =>
      fuzz({
        runs: 500,
        inputs: [
          fc.oneof(
            mutated(Buffer.from('{"port": 7070, "host": "127.0.0.1"}')),
            fc.json().map((text) => Buffer.from(text)),
          ),
        ],
        holds: async (bytes) => {
          const config = join(folder, 'config.json')
          writeFileSync(config, bytes)
          await refusal(() => {
            const options = withConfig({ config }, ['port', 'host'])
            for (const key of Object.keys(options)) expect(['port', 'host']).toContain(key)
          }, 'ERR_RFAAS_INVALID_ARGUMENT')
        },
      }),
    patienceMs,
  )
})

describe('the checker', () => {
  const schemas = Object.entries(messages as Record<string, unknown>).filter(
    (entry): entry is [string, TSchema] =>
      typeof entry[1] === 'object' &&
      entry[1] !== null &&
      ('type' in entry[1] || 'anyOf' in entry[1]),
  )
  const anything = fc
    .constantFrom(...schemas)
    .chain(([name, schema]) => fc.tuple(fc.constant(name), fromSchema(schema as Schema)))

  it(
    'finds what is wrong with any message and names it briefly',
    () =>
      fuzz({
        runs: 800,
        inputs: [anything],
        holds: ([name, value]) => {
          const finding = inspect((messages as Record<string, unknown>)[name] as TSchema, value)
          if (finding === undefined) return
          expect(finding.field.length).toBeGreaterThan(0)
          expect(finding.message.length).toBeLessThan(2000)
        },
      }),
    patienceMs,
  )
})
