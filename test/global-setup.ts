// Tests import TypeScript directly, but the processes that they start run dist/ and the addon.
// Stale ones would test yesterday's code, so they stop the run here.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

export function setup(): void {
  if (!['Release', 'Debug'].some((kind) => existsSync(join(root, 'build', kind, 'rfaas.node')))) {
    throw new Error('The native addon is not built. Run: npm run build:native')
  }
  const stale = ['lib', 'executor-manager', 'resource-manager', 'examples']
    .flatMap((folder) => sources(join(root, folder)))
    .map((file) => relative(root, file))
    .find((file) => !isFresh(join(root, file), join(root, 'dist', file.replace(/\.ts$/, '.js'))))
  if (stale !== undefined) {
    throw new Error(`${stale} is newer than what was compiled from it. Run: npm run build:ts`)
  }
}

function sources(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .filter((name) => !name.includes('node_modules'))
    .map((name) => join(folder, name))
}

function isFresh(source: string, compiled: string): boolean {
  return existsSync(compiled) && statSync(compiled).mtimeMs >= statSync(source).mtimeMs
}
