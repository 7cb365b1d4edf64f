// Builds the addon, the executor and, where rdma-core's headers are, the verbs plugin with node-gyp.
// This is what `npm install` runs: it uses the Node headers that came with this Node and downloads
// nothing when they are there.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const prefix = dirname(dirname(process.execPath))
const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')

const args = [nodeGyp, existsSync(join(root, 'build', 'config.gypi')) ? 'build' : 'rebuild']
if (process.argv.includes('--reconfigure')) args[1] = 'rebuild'
if (existsSync(join(prefix, 'include', 'node', 'node_api.h'))) args.push(`--nodedir=${prefix}`)
args.push('--loglevel=warn', `--jobs=${process.env.JOBS ?? 'max'}`)

const { status, error } = spawnSync(process.execPath, args, {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, npm_config_nodedir: undefined },
})
if (error) throw error
if (status !== 0) {
  console.error(
    '\nrfaas: the native build failed. It needs a C++20 compiler, make and python3' +
      ' (Debian: apt-get install g++ make python3).',
  )
}
process.exit(status ?? 1)
