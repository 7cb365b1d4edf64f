// What can be measured, by the names that the command line and the files use.
import { bandwidth } from './bandwidth.js'
import { coldStart } from './cold-start.js'
import { footprint } from './footprint.js'
import { latency, realFunction } from './latency.js'
import { leases } from './leases.js'
import { neighbour } from './neighbour.js'
import { clients, depth, workers } from './throughput.js'
import type { Trial } from './trial.js'

export const trials: Readonly<Record<string, Trial>> = {
  latency,
  function: realFunction,
  depth,
  workers,
  clients,
  bandwidth,
  'cold-start': coldStart,
  leases,
  footprint,
  neighbour,
}
