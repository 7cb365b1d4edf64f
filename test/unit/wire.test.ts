import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { native } from '../../lib/native.js'

// The same file is checked against the C++ structs by native/test/wire_test.cc.
const golden = JSON.parse(
  readFileSync(new URL('./wire-vectors.json', import.meta.url), 'utf8'),
) as { callStatuses: Record<string, number> }

test('the addon and the wire format agree about the numbers of call statuses', () => {
  expect({ ...native.constants.callStatuses }).toEqual(golden.callStatuses)
})
