import { expect, test } from 'vitest'

import { documentedMatrix, renderMatrix } from '../faults/document.js'

test('docs/failures.md promises what npm run test:faults checks', () => {
  // Stale? npm run test:faults -- --write-docs
  expect(documentedMatrix()).toBe(renderMatrix())
})
