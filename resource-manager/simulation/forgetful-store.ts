// A store for managers that are never started again: it keeps nothing.
import type { Snapshot, Store } from '../stores/store.js'

const done = Promise.resolve()

export const emptySnapshot: Snapshot = {
  ...{ epoch: 0, clock: undefined, leases: [], nodes: [], usage: [], jobs: [] },
}

export function forgetfulStore(): Store {
  return {
    failed: new Promise(() => undefined),
    load: () => Promise.resolve(emptySnapshot),
    assertWritable: () => undefined,
    commit: () => done,
    settled: () => done,
    async *ledger() {
      // It has none.
    },
    close: () => done,
  }
}
