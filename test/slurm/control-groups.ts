// Control groups in which Slurm puts jobs, of version 1: one tree for each controller.
import { accessSync, constants, existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'

const mount = '/sys/fs/cgroup'
const controllers = ['cpuset', 'freezer', 'memory'] as const
export type Controller = (typeof controllers)[number]

/** Why Slurm can make none here. */
export const lackOfControlGroups = lack()
if (lackOfControlGroups !== undefined) {
  console.warn(`tests of control groups in Slurm: skipped, ${lackOfControlGroups}`)
}

function lack(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root'
  try {
    for (const controller of controllers) {
      accessSync(join(mount, controller, 'tasks'), constants.W_OK)
    }
  } catch (error) {
    return `needs control groups of version 1: ${(error as Error).message}`
  }
  return undefined
}

/** How Slurm is told to use them. */
export const controlGroups = {
  slurm: 'ProctrackType=proctrack/cgroup\nTaskPlugin=task/affinity,task/cgroup\n',
  cgroup: `CgroupPlugin=cgroup/v1
CgroupMountpoint=${mount}
CgroupAutomount=no
ConstrainCores=yes
ConstrainRAMSpace=yes
`,
}

/** slurmd leaves its own behind: all of a node whose jobs have ended. */
export function removeGroupsOf(node: string): void {
  for (const controller of controllers) remove(join(mount, controller, `slurm_${node}`))
}

/** The group of a process: a folder. */
export function groupOf(pid: number, controller: Controller): string {
  const all = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const path = all.map((line) => line.split(':')).find(([, name]) => name === controller)?.[2]
  if (path === undefined) throw new Error(`process ${pid} has no group of ${controller}`)
  return join(mount, controller, path)
}

function remove(folder: string): void {
  if (!existsSync(folder)) return
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) remove(join(folder, entry.name))
  }
  rmdirSync(folder)
}
