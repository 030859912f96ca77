"""What every room rests on: types, errors, parameter trees and their leaf names, dropout."""
