// All rows of the failure matrix, in the order of docs/failures.md.
import type { Scenario } from './scenario.js'
import { batchSystem } from './scenarios/batch.js'
import { clients } from './scenarios/clients.js'
import { clocks } from './scenarios/clocks.js'
import { connections } from './scenarios/connections.js'
import { control } from './scenarios/control.js'
import { executorManagers } from './scenarios/executor-managers.js'
import { functions } from './scenarios/functions.js'
import { leaks } from './scenarios/leaks.js'
import { leases } from './scenarios/leases.js'
import { partitions } from './scenarios/partitions.js'
import { resourceManagers } from './scenarios/resource-managers.js'
import { severalManagers } from './scenarios/several-managers.js'
import { stores } from './scenarios/stores.js'
import { wires } from './scenarios/wires.js'
import { workers } from './scenarios/workers.js'

export interface Section {
  title: string
  scenarios: readonly Scenario[]
}

export const matrix: readonly Section[] = [
  { title: 'Functions', scenarios: functions },
  { title: 'Workers and executors', scenarios: workers },
  { title: 'The executor manager', scenarios: executorManagers },
  { title: 'The resource manager', scenarios: resourceManagers },
  { title: 'Several resource managers', scenarios: severalManagers },
  { title: 'The batch system', scenarios: batchSystem },
  { title: 'Clients', scenarios: clients },
  { title: 'Leases', scenarios: leases },
  { title: 'The control plane', scenarios: control },
  { title: 'The network', scenarios: [...connections, ...wires, ...partitions] },
  { title: 'Disk and store', scenarios: stores },
  { title: 'Clocks', scenarios: clocks },
  { title: 'In the long run', scenarios: leaks },
]
