// `rfaas include`: where the compiler finds <rfaas/function.h>.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'

import { packageRoot } from '../package-root.js'
import { CommandError } from './failure.js'
import { print } from './output.js'

export function includeCommand(): Command {
  return new Command('include')
    .description('print the folder of <rfaas/function.h>, for compilers')
    .addHelpText(
      'after',
      `
Example:
  g++ -std=c++20 -O3 -shared -fPIC -I "$(rfaas include)" -o hello.so hello.cc`,
    )
    .action(async () => {
      const folder = join(packageRoot(), 'native', 'include')
      if (!existsSync(join(folder, 'rfaas', 'function.h'))) {
        throw new CommandError(`the package is incomplete: ${folder}/rfaas/function.h is missing`, {
          hint: 'install rfaas again',
        })
      }
      await print(`${folder}\n`)
    })
}
