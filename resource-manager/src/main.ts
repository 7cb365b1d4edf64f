// The resource manager as a process of its own.
import { runCommand } from '../../lib/control/command.js'
import { resourceManagerCommand } from './command.js'

await runCommand(resourceManagerCommand())
