// What the fuzz targets in TypeScript share. As part of the tests each makes the same few runs every
// time; `npm run fuzz -- TARGET SECONDS` lets it look for so long, with another seed each time.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
import { RfaasError, type ErrorCode } from '../../lib/errors.js'

const seconds = Number(process.env['RFAAS_FUZZ_SECONDS'] ?? 0)
const seed = process.env['RFAAS_FUZZ_SEED']
const path = process.env['RFAAS_FUZZ_PATH']

/** For vitest: a target that is given seconds needs them. */
export const patienceMs = 120_000 + 1000 * seconds

export interface Runs<Values extends unknown[]> {
  /** Of the short, repeatable look. */
  runs: number
  inputs: { [Index in keyof Values]: fc.Arbitrary<Values[Index]> }
  /** What broke it once: tried first, for ever. */
  regressions?: Values[]
  /** Throws when something does not hold that must. */
  holds(...values: Values): Promise<void> | void
}

/** Looks for values for which `holds` throws. A finding is kept as a file and told with what repeats
 * it. */
export async function fuzz<Values extends [unknown, ...unknown[]]>(
  what: Runs<Values>,
): Promise<void> {
  const property = fc.asyncProperty<Values>(
    ...(what.inputs as unknown as { [Index in keyof Values]: fc.Arbitrary<Values[Index]> }),
    async (...values) => {
      await what.holds(...values)
    },
  )
  const began = performance.now()
  const outcome = await fc.check(property, {
    numRuns: seconds > 0 ? 2 ** 30 : what.runs,
    ...(seconds > 0 && { interruptAfterTimeLimit: seconds * 1000 }),
    seed: seed !== undefined ? Number(seed) : seconds > 0 ? Date.now() & 0x7fffffff : 1,
    ...(path !== undefined && { path }),
    ...(what.regressions !== undefined && { examples: what.regressions }),
    endOnFailure: false,
  })
  if (outcome.failed && outcome.counterexample !== null) {
    throw new Error(keep(outcome))
  }
  if (seconds > 0) {
    const passed = (performance.now() - began) / 1000
    const name = expect.getState().currentTestName
    console.log(
      `${name}: ${outcome.numRuns} runs, ${Math.round(outcome.numRuns / passed)} a second, seed ${outcome.seed}`,
    )
  }
}

function keep<Values>(outcome: fc.RunDetails<Values>): string {
  const { currentTestName: name = 'fuzz', testPath = '' } = expect.getState()
  const target = /([^/]+)\.test\.ts$/.exec(testPath)?.[1] ?? 'target'
  const again = `RFAAS_FUZZ_SEED=${outcome.seed} RFAAS_FUZZ_PATH=${outcome.counterexamplePath} npx vitest run test/fuzz/${target}.test.ts -t '${name.replaceAll(' > ', ' ')}'`
  const cause = outcome.errorInstance
  const text = [
    `${name}: does not hold after ${outcome.numRuns} runs`,
    cause instanceof Error ? String(cause.stack) : String(cause),
    `with ${fc.stringify(outcome.counterexample)}`,
    `again: ${again}`,
  ].join('\n')
  const folder = join(packageRoot(), 'build-fuzz', 'findings')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${target}-${outcome.seed}.txt`)
  writeFileSync(file, text)
  return `${text}\nkept in ${file}; when it is fixed, its values go among the target's regressions`
}

/** `bytes` with one to four places cut out, overwritten or filled with something else. */
export function mutated(bytes: Uint8Array): fc.Arbitrary<Buffer> {
  const edit = fc.record({
    at: fc.nat(bytes.length),
    cut: fc.nat(8),
    put: fc.uint8Array({ maxLength: 8 }),
  })
  return fc.array(edit, { minLength: 1, maxLength: 4 }).map((edits) =>
    edits.reduce((now, { at, cut, put }) => {
      const from = Math.min(at, now.length)
      return Buffer.concat([now.subarray(0, from), put, now.subarray(from + cut)])
    }, Buffer.from(bytes)),
  )
}

/** What `act` throws, which must be an error of ours with one of `codes`; undefined: it went well. */
export async function refusal(
  act: () => unknown,
  ...codes: ErrorCode[]
): Promise<RfaasError | undefined> {
  try {
    await act()
    return undefined
  } catch (error) {
    if (!(error instanceof RfaasError) || !codes.includes(error.code)) throw error
    expect(error.message.length).toBeLessThan(2000)
    return error
  }
}
