// What a harvest job runs: an executor manager that becomes a node as large as the job.
import { join } from 'node:path'
import { packageRoot } from '../../../lib/package-root.js'
import type { SlurmConfig } from './options.js'
import { ownMemoryMiB, type NewJob } from './planning.js'

/** It `exec`s, so that the executor manager is who Slurm signals. */
export function jobScript(job: NewJob, resourceManager: string, config: SlurmConfig): string {
  const { batchNode, node, cores, memoryMiB } = job
  const { nice, nodeConfig, dataDir, noticeMs } = config
  const command = [
    ...['nice', '-n', `${nice}`, 'ionice', '-c', '3'],
    process.execPath,
    join(packageRoot(), 'dist/executor-manager/src/main.js'),
    ...(nodeConfig === undefined ? [] : ['--config', nodeConfig]),
    ...['--resource-manager', resourceManager],
    ...['--name', node],
    ...['--host', batchNode.address, '--port', '0'],
    ...['--cores', `${cores}`],
    ...['--memory-bytes', `${memoryMiB - ownMemoryMiB(cores)}MiB`],
    ...['--data-dir', join(dataDir, node)],
    ...['--notice-ms', `${noticeMs}ms`],
  ]
  const lines = [`exec ${command.map(quoted).join(' ')} --job "$SLURM_JOB_ID"`]
  if (!job.whole) lines.unshift(boundTo(cores))
  return lines.join('\n')
}

/** Others run on the same host: their cores are theirs only if Slurm keeps this job on its own. */
function boundTo(cores: number): string {
  return [
    'bound=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)',
    `if [ "$bound" -gt ${cores} ]; then`,
    `  echo "rfaas: this job has ${cores} cores and may run on $bound: Slurm has to bind jobs (TaskPlugin) to share nodes" >&2`,
    '  exit 78',
    'fi',
  ].join('\n')
}

function quoted(word: string): string {
  return /^[\w%+,./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
