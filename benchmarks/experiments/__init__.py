"""One module for each experiment, named by its id on the scoreboard in small letters.

A module gives

    SETTINGS                          a dict for JSON; "seed" sets the key (0 without it)
    cases(settings)                   list of (case name, settings of the case)
    run_case(settings, case, key)     a dict for JSON; case is the case's settings
    summarise(settings, results)      dict of values; results maps case name to its dict
"""
