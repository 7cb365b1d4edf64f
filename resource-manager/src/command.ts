// The command line of the resource manager: flags and a JSON config file with the same names.
import { Command, InvalidArgumentError, Option } from 'commander'
import { serve, toPort, withConfig, withSecurityFlags } from '../../lib/control/command.js'
import { logLevels } from '../../lib/control/log.js'
import { schedulerNames } from '../schedulers/policies.js'
import type { ResourceManagerOptions } from './config.js'
import { startResourceManager } from './index.js'
import { slurmOptionNames } from '../sources/slurm/options.js'
import { sourceNames } from '../sources/source.js'

const names = [
  'host',
  'port',
  'dataDir',
  'heartbeatMs',
  'nodeTimeoutMs',
  'maxLeaseMs',
  'minFreeBytes',
  'scheduler',
  'keysFile',
  'tlsCert',
  'tlsKey',
  'nodeCa',
  'store',
  'etcd',
  'etcdPrefix',
  'etcdCa',
  'etcdCert',
  'etcdKey',
  'leaderTimeoutMs',
  'advertise',
  'peerCa',
  'allowPlaintext',
  'source',
  ...slurmOptionNames,
  'logLevel',
] as const

/** For `program.addCommand()` or on its own. Ends the process cleanly on SIGTERM and SIGINT. */
export function resourceManagerCommand(): Command {
  return withSlurmFlags(withSecurityFlags(new Command('resource-manager')))
    .description('grant, renew and revoke leases on the cores of the registered nodes')
    .option('--host <address>', 'address to listen on (default: 127.0.0.1)')
    .option('--port <port>', 'port to listen on, 0 for a free one (default: 7070)', toPort)
    .option('--data-dir <path>', 'where leases, ledger and signing key are kept')
    .option('--heartbeat-ms <time>', 'interval in which nodes report (default: 2s)')
    .option(
      '--node-timeout-ms <time>',
      'silence after which a node is lost (default: 3 heartbeats)',
    )
    .option('--max-lease-ms <time>', 'longest lease and renewal (default: 7d)')
    .option('--min-free-bytes <size>', 'disk space to leave unused (default: 64MiB)')
    .addOption(
      new Option('--scheduler <policy>', 'how nodes are chosen (default: first-fit)').choices(
        schedulerNames,
      ),
    )
    .option('--node-ca <file>', 'authorities of the nodes, which then have to show a certificate')
    .addOption(
      new Option('--store <kind>', 'etcd: one of several managers (default: lmdb)').choices([
        'lmdb',
        'etcd',
      ]),
    )
    .option('--etcd <urls>', 'members of etcd (default: http://127.0.0.1:2379)')
    .option('--etcd-prefix <text>', 'of its keys, the same for one cluster (default: rfaas/)')
    .option('--etcd-ca <file>', "authorities of etcd's certificates (PEM)")
    .option('--etcd-cert <file>', 'certificate to come to etcd with (PEM)')
    .option('--etcd-key <file>', 'its private key (PEM, mode 0600)')
    .option('--leader-timeout-ms <time>', 'silence after which another one leads (default: 5s)')
    .option('--advertise <url>', 'where the other managers reach this one')
    .option('--peer-ca <file>', "authorities of the other managers' certificates (PEM)")
    .addOption(new Option('--log-level <level>', 'least severity to log').choices(logLevels))
    .option('--config <file>', 'JSON object with these options; flags win')
    .action((flags: ResourceManagerOptions & { config?: string }) =>
      serve(() => startResourceManager(withConfig<ResourceManagerOptions>(flags, names))),
    )
}

function withSlurmFlags(command: Command): Command {
  return command
    .addOption(
      new Option('--source <name>', 'where nodes come from (default: static)').choices(sourceNames),
    )
    .option('--slurm-partition <name>', 'of the harvest jobs (default: faas)')
    .option('--slurm-account <name>', 'of the harvest jobs')
    .option('--slurm-qos <name>', 'of the harvest jobs')
    .option('--slurm-cap <cores>', 'most cores to harvest (default: all that are idle)', toCount)
    .option('--slurm-reserve <cores>', 'idle cores to leave to Slurm (default: 0)', toCount)
    .option('--slurm-memory-reserve <size>', 'idle memory to leave on each node (default: 0)')
    .option('--slurm-shared', 'also take what is idle on nodes that run other jobs')
    .option('--slurm-poll-ms <time>', 'interval in which Slurm is asked (default: 5s)')
    .option('--slurm-command-timeout-ms <time>', 'that a command of Slurm may take (default: 15s)')
    .option('--slurm-min-idle-ms <time>', 'how long something has to be idle before (default: 0)')
    .option('--slurm-notice-ms <time>', 'for leases when Slurm wants a node back (default: 30s)')
    .option('--slurm-time-limit-ms <time>', 'of harvest jobs (default: that of the partition)')
    .option('--slurm-nice <value>', 'of what runs in harvest jobs (default: 19)', toCount)
    .option('--slurm-log <path>', 'where harvest jobs log, as sbatch --output (default: /dev/null)')
    .option(
      '--slurm-data-dir <path>',
      'of executor managers (default: ~/.local/state/rfaas/harvest)',
    )
    .option('--slurm-node-config <file>', 'config file of executor managers, on every node')
    .option('--slurm-url <url>', 'under which nodes reach this manager (default: where it listens)')
}

function toCount(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new InvalidArgumentError('must be a whole number')
  return Number(text)
}
