// `rfaas resource-manager` and `rfaas executor-manager`: the managers' own commands. They bring an
// HTTP server and a database, which every other command does without: until one of them is asked
// for, it is only a name for the list of commands.
import { Command } from 'commander'

const resourceManager = 'resource-manager'
const executorManager = 'executor-manager'

export async function managerCommands(args: readonly string[]): Promise<[Command, Command]> {
  return [
    args.includes(resourceManager)
      ? (await import('../../resource-manager/src/command.js')).resourceManagerCommand()
      : new Command(resourceManager).description('grant leases on the nodes of the cluster'),
    args.includes(executorManager)
      ? (await import('../../executor-manager/src/command.js')).executorManagerCommand()
      : new Command(executorManager).description('lend the cores of this machine'),
  ]
}
